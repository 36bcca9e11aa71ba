//! Enumerations whose values have names that users write.

/// A name that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {what} \"{name}\": there are {known}")]
pub struct UnknownName {
    /// What was looked for.
    pub what: &'static str,
    /// What was given.
    pub name: String,
    /// All there are.
    pub known: String,
}

/// Defines an enumeration with the names of its values, in which form they are written to documents too.
macro_rules! named {
    ($(#[$about:meta])* $type:ident, $what:literal, { $($(#[$value_about:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $type {
            $($(#[$value_about])* #[serde(rename = $name)] $value,)*
        }

        impl $type {
            /// All of them, in their order.
            pub const ALL: &[Self] = &[$(Self::$value,)*];
            /// Their names.
            pub const NAMES: &[&str] = &[$($name,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::names::UnknownName;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                let found = Self::ALL.iter().find(|value| value.name() == name);
                found.copied().ok_or_else(|| $crate::names::UnknownName {
                    what: $what,
                    name: name.to_owned(),
                    known: Self::NAMES.join(", "),
                })
            }
        }
    };
}

pub(crate) use named;
