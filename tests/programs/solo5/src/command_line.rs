//! The command line: as Rumprun takes it (what looks like JSON), or MirageOS (`--ipv4=ADDRESS/PREFIX --ipv4-gateway=GATEWAY ARGUMENTS`).

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What it says.
#[derive(Default)]
pub struct Settings {
    /// Whose form it has.
    pub name: String,
    /// `ADDRESS/PREFIX:GATEWAY`.
    pub address: String,
    /// Variables, as `NAME=VALUE`.
    pub variables: Vec<String>,
    /// Arguments of the program.
    pub arguments: Vec<String>,
}

impl Settings {
    /// A variable's value.
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut pairs = self.variables.iter().filter_map(|pair| pair.split_once('='));
        pairs.find(|(is, _)| *is == name).map(|(_, value)| value)
    }
}

/// Takes it apart.
pub fn parse(line: &str) -> Settings {
    match line.starts_with('{') {
        true => rumprun(line),
        false => mirage(line),
    }
}

/// Names and values are what is within quotes; there are no others in it.
fn rumprun(line: &str) -> Settings {
    let mut settings = Settings {
        name: "rumprun".to_owned(),
        ..Settings::default()
    };
    let (mut address, mut prefix, mut gateway) = ("", "", "");
    let mut quoted = line.split('"').skip(1).step_by(2);
    while let Some(name) = quoted.next() {
        if matches!(name, "net" | "blk") {
            continue;
        }
        let value = quoted.next().unwrap_or_default();
        match name {
            "cmdline" => settings.arguments = words(value),
            "env" => settings.variables.push(value.to_owned()),
            "addr" => address = value,
            "mask" => prefix = value,
            "gw" => gateway = value,
            _ => {}
        }
    }
    settings.address = format!("{address}/{prefix}:{gateway}");
    settings
}

fn mirage(line: &str) -> Settings {
    let mut settings = Settings {
        name: "mirage".to_owned(),
        ..Settings::default()
    };
    let (mut address, mut gateway) = (String::new(), String::new());
    for word in words(line) {
        if let Some(value) = word.strip_prefix("--ipv4=") {
            address = value.to_owned();
        } else if let Some(value) = word.strip_prefix("--ipv4-gateway=") {
            gateway = value.to_owned();
        } else {
            settings.arguments.push(word);
        }
    }
    settings.address = format!("{address}:{gateway}");
    settings
}

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}
