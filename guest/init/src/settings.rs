//! What is to be run.

use std::io;

use spore_abi::microvm::Kind;

use crate::channel::Reader;

/// What the daemon says before the program is started.
#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    /// Who the program runs as: numbers of the user, its group, and its further groups.
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) more_groups: Vec<u32>,
    pub(crate) secrets: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) port: u16,
    /// Limit of the program's memory, in bytes.
    pub(crate) memory_bytes: u64,
    /// Length of the program that is the whole root; 0 if the root is a file system.
    pub(crate) program_bytes: u64,
    /// Nanoseconds since 1970.
    pub(crate) clock_ns: u64,
    /// What random numbers are to be made from; nothing in a machine that was not saved.
    pub(crate) seed: Vec<u8>,
}

impl Settings {
    /// Reads all up to the start.
    pub(crate) fn read(reader: &mut Reader) -> io::Result<Self> {
        let mut settings = Self::default();
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "no settings of the daemon");
        loop {
            let (header, content) = reader.read()?;
            match header.kind {
                Kind::Argument => settings.arguments.push(content),
                Kind::Variable => {
                    let at = content.iter().position(|&byte| byte == b'=').ok_or_else(bad)?;
                    let (name, value) = (content[..at].to_vec(), content[at + 1..].to_vec());
                    settings.environment.push((name, value));
                }
                Kind::Directory => settings.directory = content,
                Kind::User => {
                    let (numbers, rest) = content.as_chunks::<4>();
                    let numbers: Vec<u32> =
                        numbers.iter().map(|number| u32::from_le_bytes(*number)).collect();
                    let ([user, group, more_groups @ ..], []) = (numbers.as_slice(), rest) else {
                        return Err(bad());
                    };
                    (settings.user, settings.group) = (*user, *group);
                    settings.more_groups = more_groups.to_vec();
                }
                Kind::Secret => settings.secrets.push((content, Vec::new())),
                Kind::SecretPart => {
                    let (_, value) = settings.secrets.last_mut().ok_or_else(bad)?;
                    value.extend_from_slice(&content);
                }
                Kind::Settings => {
                    let numbers = numbers::<3>(&content).ok_or_else(bad)?;
                    settings.port = u16::try_from(numbers[0]).map_err(|_| bad())?;
                    [_, settings.memory_bytes, settings.program_bytes] = numbers;
                }
                Kind::Seed => settings.seed.extend_from_slice(&content),
                Kind::Clock => [settings.clock_ns] = numbers::<1>(&content).ok_or_else(bad)?,
                Kind::Start => return Ok(settings),
                _ => return Err(bad()),
            }
        }
    }
}

fn numbers<const N: usize>(content: &[u8]) -> Option<[u64; N]> {
    let (numbers, rest) = content.as_chunks::<8>();
    let numbers: [[u8; 8]; N] = numbers.try_into().ok()?;
    rest.is_empty().then(|| numbers.map(u64::from_le_bytes))
}
