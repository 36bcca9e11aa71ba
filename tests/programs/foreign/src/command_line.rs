//! The command line, as Unikraft takes it: `NAME netdev.ip=ADDRESS/PREFIX:GATEWAY env.vars=[ "NAME=VALUE" ... ] -- ARGUMENTS`.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// What it says.
#[derive(Default)]
pub struct Settings {
    /// The kernel's name.
    pub name: String,
    /// `ADDRESS/PREFIX:GATEWAY...`.
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
    let mut words = words(line).into_iter();
    let mut settings = Settings {
        name: words.next().unwrap_or_default(),
        ..Settings::default()
    };
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        } else if let Some(address) = word.strip_prefix("netdev.ip=") {
            settings.address = address.to_owned();
        } else if word == "env.vars=[" {
            settings.variables = words.by_ref().take_while(|word| word != "]").collect();
        }
    }
    settings.arguments = words.collect();
    settings
}

/// Words, which blanks separate that are not within quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut is_quoted, mut is_word) = (Vec::new(), String::new(), false, false);
    for character in line.chars() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                is_word = true;
            }
            ' ' if !is_quoted => {
                if core::mem::take(&mut is_word) {
                    words.push(core::mem::take(&mut word));
                }
            }
            _ => {
                word.push(character);
                is_word = true;
            }
        }
    }
    if is_word {
        words.push(word);
    }
    words
}
