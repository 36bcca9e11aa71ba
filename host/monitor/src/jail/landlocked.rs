//! Landlock (landlock(7)): a process gives up access by itself, for good.

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};

/// Why there is no such layer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LandlockError {
    #[error("the kernel refuses it: {0}")]
    Refused(#[from] RulesetError),
    #[error("the kernel has none (it came with Linux 5.13)")]
    Absent,
}

/// Denies all access that this kernel's Landlock knows, with no exception: to files, to TCP ports, to abstract sockets
/// and, unless it `may_signal`, by signals to processes outside.
pub(super) fn deny_everything(may_signal: bool) -> Result<(), LandlockError> {
    // What the kernel does not know is left out.
    const NEWEST: ABI = ABI::V6;
    let mut scopes = Scope::from_all(NEWEST);
    if may_signal {
        scopes.remove(Scope::Signal);
    }
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(scopes)?
        .create()?
        .restrict_self()?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(LandlockError::Absent),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}
