//! What unikernels are told, in the form that each framework has for it. Pure.
//!
//! ```text
//!   Unikraft   unikraft netdev.ip=ADDRESS/PREFIX:GATEWAY env.vars=[ "NAME=VALUE" ] vfs.fstab=[ "initrd0:/:extract::ramfs=2:" ] -- ARGUMENTS
//!              before 0.16.1: netdev.ipv4_addr= netdev.ipv4_gw_addr= netdev.ipv4_subnet_mask= vfs.rootfs=initrd, no variables
//!   Nanos      nothing: it asks by DHCP; variables and arguments are in its disk
//!   OSv        --ip=eth0,ADDRESS,MASK --defaultgw=GATEWAY --env=NAME=VALUE ARGUMENTS
//!   Hermit     -ip ADDRESS -mask MASK -gateway GATEWAY env=NAME=VALUE -- ARGUMENTS
//!   MirageOS   --ipv4=ADDRESS/PREFIX --ipv4-gateway=GATEWAY ARGUMENTS
//!   Mewz       ip=ADDRESS/PREFIX gateway=GATEWAY
//!   Rumprun    {"cmdline":"ARGUMENTS","env":"NAME=VALUE",...,"net":{...},"blk":{...}}
//! ```

use std::fmt;
use std::net::Ipv4Addr;

use super::means::Monitor;

/// Longest command line, in bytes: what most frameworks have room for.
const BYTES_MAX: usize = 4096;
/// The first version of Unikraft with today's form.
const UNIKRAFT_TODAY: [u32; 3] = [0, 16, 1];

/// Whose unikernel it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framework {
    Unikraft,
    Nanos,
    Osv,
    Hermit,
    Mirage,
    Mewz,
    Rumprun,
}

impl Framework {
    pub(crate) const ALL: [Self; 7] = [
        Self::Unikraft,
        Self::Nanos,
        Self::Osv,
        Self::Hermit,
        Self::Mirage,
        Self::Mewz,
        Self::Rumprun,
    ];

    /// The name that images have for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unikraft => "unikraft",
            Self::Nanos => "nanos",
            Self::Osv => "osv",
            Self::Hermit => "hermit",
            Self::Mirage => "mirage",
            Self::Mewz => "mewz",
            Self::Rumprun => "rumprun",
        }
    }

    /// The one of this name, in whichever letters.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|framework| framework.name().eq_ignore_ascii_case(name))
    }

    /// The port by which it tells the machine how it ended, if it has one besides the power switch.
    pub(crate) const fn exit_port(self) -> Option<u16> {
        match self {
            Self::Nanos | Self::Mewz => Some(0x501),
            Self::Unikraft | Self::Osv | Self::Hermit | Self::Mirage | Self::Rumprun => None,
        }
    }

    /// Whether there are unikernels of it for a monitor.
    pub(crate) const fn is_for(self, monitor: Monitor) -> bool {
        match monitor {
            Monitor::Qemu => !matches!(self, Self::Rumprun),
            Monitor::Tender => matches!(self, Self::Mirage | Self::Rumprun),
        }
    }

    /// Whether the machine starts what its disk begins with, and not the kernel. Nanos' kernel puts its first tables where a `pc` has
    /// its firmware, and reads no command line of QEMU's: it asks by DHCP, and has variables and arguments in its disk.
    pub(crate) const fn starts_from_disk(self) -> bool {
        matches!(self, Self::Nanos)
    }
}

impl fmt::Display for Framework {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unikraft => "Unikraft",
            Self::Nanos => "Nanos",
            Self::Osv => "OSv",
            Self::Hermit => "Hermit",
            Self::Mirage => "MirageOS",
            Self::Mewz => "Mewz",
            Self::Rumprun => "Rumprun",
        })
    }
}

/// The addresses of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) guest: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    /// Bits of the network's part.
    pub(crate) prefix: u8,
}

impl Addresses {
    pub(crate) fn mask(&self) -> Ipv4Addr {
        let host_bits = 32_u32.saturating_sub(self.prefix.into());
        Ipv4Addr::from_bits(u32::MAX.checked_shl(host_bits).unwrap_or(0))
    }
}

/// What a unikernel is to be told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words<'a> {
    pub(crate) version: Option<&'a str>,
    pub(crate) addresses: Addresses,
    pub(crate) arguments: &'a [String],
    pub(crate) environment: &'a [(String, String)],
    pub(crate) has_initrd: bool,
    /// Where the file system of its disk is to be, if it has a disk.
    pub(crate) disk_folder: Option<&'a str>,
}

/// Why there is no such command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCommandLine {
    #[error("its command line would be longer than {BYTES_MAX} bytes: give it fewer arguments and variables")]
    TooLong,
    #[error(
        "{what} cannot be on a command line of {framework}, which has no form for quotes, backslashes and control characters\
         {}{}: choose another value",
        if *takes_blanks { "" } else { ", nor for blanks" },
        if *framework == Framework::Unikraft { ", nor for `]` in variables" } else { "" }
    )]
    NoForm {
        what: String,
        framework: Framework,
        takes_blanks: bool,
    },
}

/// The command line.
pub(crate) fn command_line(framework: Framework, words: &Words<'_>) -> Result<String, NoCommandLine> {
    let Addresses {
        guest,
        gateway,
        prefix,
    } = words.addresses;
    let mask = words.addresses.mask();
    let arguments = || written(framework, words.arguments);
    let variables = || -> Result<Vec<String>, NoCommandLine> {
        let pairs = words.environment.iter();
        pairs
            .map(|(name, value)| variable(framework, name, value))
            .collect()
    };
    let parts = match framework {
        Framework::Unikraft => unikraft(words, variables, arguments()?)?,
        Framework::Nanos => Vec::new(),
        Framework::Osv => {
            let network = [
                format!("--ip=eth0,{guest},{mask}"),
                format!("--defaultgw={gateway}"),
            ];
            let variables = variables()?.into_iter().map(|pair| format!("--env={pair}"));
            network.into_iter().chain(variables).chain(arguments()?).collect()
        }
        Framework::Hermit => {
            let network = format!("-ip {guest} -mask {mask} -gateway {gateway}");
            let variables = variables()?.into_iter().map(|pair| format!("env={pair}"));
            with_arguments([network].into_iter().chain(variables).collect(), arguments()?)
        }
        Framework::Mirage => {
            let network = [
                format!("--ipv4={guest}/{prefix}"),
                format!("--ipv4-gateway={gateway}"),
            ];
            network.into_iter().chain(arguments()?).collect()
        }
        Framework::Mewz => vec![format!("ip={guest}/{prefix}"), format!("gateway={gateway}")],
        Framework::Rumprun => vec![rumprun(words, variables()?, &arguments()?)?],
    };
    let line = parts.join(" ");
    match line.len() > BYTES_MAX {
        true => Err(NoCommandLine::TooLong),
        false => Ok(line),
    }
}

fn unikraft(
    words: &Words<'_>,
    variables: impl Fn() -> Result<Vec<String>, NoCommandLine>,
    arguments: Vec<String>,
) -> Result<Vec<String>, NoCommandLine> {
    let Addresses {
        guest,
        gateway,
        prefix,
    } = words.addresses;
    // The first word is the kernel's own name.
    let mut parts = vec!["unikraft".to_owned()];
    if is_of_old(words.version) {
        parts.push(format!("netdev.ipv4_addr={guest}"));
        parts.push(format!("netdev.ipv4_gw_addr={gateway}"));
        parts.push(format!("netdev.ipv4_subnet_mask={}", words.addresses.mask()));
        parts.extend(words.has_initrd.then(|| "vfs.rootfs=initrd".to_owned()));
    } else {
        parts.push(format!("netdev.ip={guest}/{prefix}:{gateway}"));
        let variables = variables()?;
        if !variables.is_empty() {
            let quoted = variables.into_iter().map(|pair| format!("\"{pair}\""));
            parts.push("env.vars=[".to_owned());
            parts.extend(quoted);
            parts.push("]".to_owned());
        }
        parts.extend(
            words
                .has_initrd
                .then(|| "vfs.fstab=[ \"initrd0:/:extract::ramfs=2:\" ]".to_owned()),
        );
    }
    Ok(with_arguments(parts, arguments))
}

/// Rumprun reads what looks like JSON, with one name for all variables, and without escapes.
fn rumprun(words: &Words<'_>, variables: Vec<String>, arguments: &[String]) -> Result<String, NoCommandLine> {
    let Addresses {
        guest,
        gateway,
        prefix,
    } = words.addresses;
    let mut parts = vec![format!("\"cmdline\":\"{}\"", arguments.join(" "))];
    parts.extend(variables.iter().map(|pair| format!("\"env\":\"{pair}\"")));
    parts.push(format!(
        "\"net\":{{\"if\":\"ukvmif0\",\"cloner\":\"True\",\"type\":\"inet\",\"method\":\"static\",\"addr\":\"{guest}\",\
         \"mask\":\"{prefix}\",\"gw\":\"{gateway}\"}}"
    ));
    if let Some(folder) = words.disk_folder {
        if !is_plain(folder, false) {
            return Err(NoCommandLine::NoForm {
                what: format!("the folder `{}` of its disk", shown(folder)),
                framework: Framework::Rumprun,
                takes_blanks: false,
            });
        }
        parts.push(format!(
            "\"blk\":{{\"source\":\"etfs\",\"path\":\"/dev/ld0a\",\"fstype\":\"blk\",\"mountpoint\":\"{folder}\"}}"
        ));
    }
    Ok(format!("{{{}}}", parts.join(",")))
}

/// What comes behind `--` is the program's.
fn with_arguments(mut parts: Vec<String>, arguments: Vec<String>) -> Vec<String> {
    parts.push("--".to_owned());
    parts.extend(arguments);
    parts
}

/// Whether a version is one before [`UNIKRAFT_TODAY`]. What is no version is of today.
fn is_of_old(version: Option<&str>) -> bool {
    let Some(version) = version else {
        return false;
    };
    let mut found = [0; 3];
    let numbers = version.trim_start_matches('v').split(['.', '-', '+', '~']);
    for (index, number) in numbers.take(3).enumerate() {
        let Ok(number) = number.parse() else {
            return index > 0 && found < UNIKRAFT_TODAY;
        };
        found[index] = number;
    }
    found < UNIKRAFT_TODAY
}

/// Arguments; those with blanks are quoted where the framework reads quotes.
fn written(framework: Framework, arguments: &[String]) -> Result<Vec<String>, NoCommandLine> {
    let takes_blanks = matches!(framework, Framework::Unikraft | Framework::Hermit);
    let word = |argument: &String| {
        if !is_plain(argument, takes_blanks) || argument.is_empty() {
            return Err(NoCommandLine::NoForm {
                what: format!("the argument `{}`", shown(argument)),
                framework,
                takes_blanks,
            });
        }
        Ok(match argument.contains(' ') {
            true => format!("\"{argument}\""),
            false => argument.clone(),
        })
    };
    arguments.iter().map(word).collect()
}

fn variable(framework: Framework, name: &str, value: &str) -> Result<String, NoCommandLine> {
    let takes_blanks = matches!(framework, Framework::Unikraft | Framework::Rumprun);
    let pair = format!("{name}={value}");
    // Unikraft's lists end with the first bracket, in quotes too; what comes behind it would be lost.
    let ends_list = framework == Framework::Unikraft && pair.contains(']');
    match is_plain(&pair, takes_blanks) && !ends_list {
        true => Ok(pair),
        false => Err(NoCommandLine::NoForm {
            // The value may be nobody else's business.
            what: format!("the value of the variable `{}`", shown(name)),
            framework,
            takes_blanks,
        }),
    }
}

fn is_plain(text: &str, takes_blanks: bool) -> bool {
    let is_odd = |c: char| {
        matches!(c, '"' | '\'' | '\\') || c.is_control() || c.is_whitespace() && !(takes_blanks && c == ' ')
    };
    !text.contains(is_odd)
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: Addresses = Addresses {
        guest: Ipv4Addr::new(10, 0, 0, 2),
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        prefix: 24,
    };

    fn line(
        framework: Framework,
        version: Option<&str>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<String, String> {
        let arguments: Vec<_> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = variables.iter().map(pair).collect();
        let words = Words {
            version,
            addresses: ADDRESSES,
            arguments: &arguments,
            environment: &environment,
            has_initrd: true,
            disk_folder: Some("/data"),
        };
        command_line(framework, &words).map_err(|error| error.to_string())
    }

    #[test]
    fn each_framework_is_told_in_its_own_form() {
        let told = |framework| line(framework, None, &["/app", "-p", "80"], &[("A", "b")]).unwrap();
        assert_eq!(
            told(Framework::Unikraft),
            "unikraft netdev.ip=10.0.0.2/24:10.0.0.1 env.vars=[ \"A=b\" ] vfs.fstab=[ \"initrd0:/:extract::ramfs=2:\" ] -- /app -p 80"
        );
        assert_eq!(told(Framework::Nanos), "");
        assert_eq!(
            told(Framework::Osv),
            "--ip=eth0,10.0.0.2,255.255.255.0 --defaultgw=10.0.0.1 --env=A=b /app -p 80"
        );
        assert_eq!(
            told(Framework::Hermit),
            "-ip 10.0.0.2 -mask 255.255.255.0 -gateway 10.0.0.1 env=A=b -- /app -p 80"
        );
        assert_eq!(
            told(Framework::Mirage),
            "--ipv4=10.0.0.2/24 --ipv4-gateway=10.0.0.1 /app -p 80"
        );
        assert_eq!(told(Framework::Mewz), "ip=10.0.0.2/24 gateway=10.0.0.1");
        assert_eq!(
            told(Framework::Rumprun),
            "{\"cmdline\":\"/app -p 80\",\"env\":\"A=b\",\"net\":{\"if\":\"ukvmif0\",\"cloner\":\"True\",\"type\":\"inet\",\
             \"method\":\"static\",\"addr\":\"10.0.0.2\",\"mask\":\"24\",\"gw\":\"10.0.0.1\"},\"blk\":{\"source\":\"etfs\",\
             \"path\":\"/dev/ld0a\",\"fstype\":\"blk\",\"mountpoint\":\"/data\"}}"
        );
    }

    #[test]
    fn unikraft_of_old_is_told_in_the_form_of_old() {
        let old = "unikraft netdev.ipv4_addr=10.0.0.2 netdev.ipv4_gw_addr=10.0.0.1 netdev.ipv4_subnet_mask=255.255.255.0 \
                   vfs.rootfs=initrd -- a";
        for version in ["0.16.0", "v0.15", "0.16.0-rc1", "0.9~12ab"] {
            assert_eq!(
                line(Framework::Unikraft, Some(version), &["a"], &[("A", "\"")]).unwrap(),
                old,
                "{version}"
            );
        }
        for version in ["0.16.1", "v0.17.0", "1.0", "stable", ""] {
            let today = line(Framework::Unikraft, Some(version), &["a"], &[]).unwrap();
            assert!(today.contains("netdev.ip="), "{version}: {today}");
        }
    }

    #[test]
    fn what_has_no_form_is_refused_with_its_name() {
        let told = line(Framework::Unikraft, None, &["two words"], &[("A", "b c")]).unwrap();
        assert!(
            told.ends_with(
                "env.vars=[ \"A=b c\" ] vfs.fstab=[ \"initrd0:/:extract::ramfs=2:\" ] -- \"two words\""
            ),
            "{told}"
        );
        for (framework, argument, value) in [
            (Framework::Unikraft, "a", "\" ] -- /other"),
            (Framework::Unikraft, "a", "[1]"),
            (Framework::Osv, "a", "b --ip=eth0,10.0.0.9,255.0.0.0"),
            (Framework::Rumprun, "a", "b\",\"net\":{}"),
        ] {
            let error = line(framework, None, &[argument], &[("KEY", value)]).unwrap_err();
            assert!(error.contains("`KEY`") && !error.contains(value), "{error}");
        }
        for (framework, argument) in [
            (Framework::Unikraft, "a\nb"),
            (Framework::Osv, "a b"),
            (Framework::Mirage, "a\tb"),
            (Framework::Hermit, "it's"),
            (Framework::Mirage, ""),
            (Framework::Rumprun, "a b"),
            (Framework::Rumprun, "\"}"),
        ] {
            assert!(
                line(framework, None, &[argument], &[]).is_err(),
                "{framework}: {argument}"
            );
        }
        assert!(
            line(Framework::Osv, None, &["a"; 4096], &[])
                .unwrap_err()
                .contains("longer than")
        );
    }

    #[test]
    fn masks_are_those_of_the_prefix() {
        for (prefix, mask) in [
            (0, [0, 0, 0, 0]),
            (1, [128, 0, 0, 0]),
            (24, [255, 255, 255, 0]),
            (32, [255; 4]),
        ] {
            let addresses = Addresses { prefix, ..ADDRESSES };
            assert_eq!(addresses.mask().octets(), mask);
        }
    }

    #[test]
    fn frameworks_have_the_names_that_images_have_for_them() {
        for framework in Framework::ALL {
            assert_eq!(
                Framework::from_name(&framework.to_string().replace("MirageOS", "MIRAGE")),
                Some(framework)
            );
        }
        assert_eq!(Framework::from_name("includeos"), None);
    }
}
