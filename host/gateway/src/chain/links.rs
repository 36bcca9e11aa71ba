//! Which functions an answer goes on to. Pure.

use spore_store::FunctionDeployment;

use crate::names::{DEFAULT_NAMESPACE, excerpt, is_name};

/// Most functions that an answer goes on to, after the one that was called.
pub(crate) const LINKS_MAX: usize = 16;

pub(super) const ANNOTATION: &str = "dev.spore.chain";

/// Why a list is no chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LinksError {
    #[error(
        "`{name}` in {place} is no function's name: write NAME,NAME.NAMESPACE,… in the order of the chain"
    )]
    Name { place: &'static str, name: String },
    #[error("{place} names {count} functions, more than the {LINKS_MAX} that an answer may go on to")]
    TooMany { place: &'static str, count: usize },
    #[error("{place} leads to `{name}` twice: a chain has no loops, so name each function once")]
    Loop { place: &'static str, name: String },
}

/// Reads a list of names for the answers of the function `first` (`NAME.NAMESPACE`); they are in its namespace unless they
/// name another one. `place` is where the list stands. The names come with their namespaces.
pub(super) fn parse(text: &str, first: &str, place: &'static str) -> Result<Vec<String>, LinksError> {
    let namespace = first
        .rsplit_once('.')
        .map_or(DEFAULT_NAMESPACE, |(_, namespace)| namespace);
    let count = text.split(',').count();
    if count > LINKS_MAX {
        return Err(LinksError::TooMany { place, count });
    }
    let mut links: Vec<String> = Vec::with_capacity(count);
    for name in text.split(',').map(str::trim) {
        let (function, of) = name.rsplit_once('.').unwrap_or((name, namespace));
        if !is_name(function) || !is_name(of) {
            return Err(LinksError::Name {
                place,
                name: excerpt(name),
            });
        }
        let key = format!("{function}.{of}");
        if key == first || links.contains(&key) {
            return Err(LinksError::Loop { place, name: key });
        }
        links.push(key);
    }
    Ok(links)
}

/// What a deployment says its answers go on to.
pub(crate) fn of_deployment(deployment: &FunctionDeployment) -> Result<Option<Vec<String>>, LinksError> {
    let annotations = deployment.annotations.as_ref();
    let Some(text) = annotations.and_then(|annotations| annotations.get(ANNOTATION)) else {
        return Ok(None);
    };
    let namespace = match deployment.namespace.as_str() {
        "" => DEFAULT_NAMESPACE,
        namespace => namespace,
    };
    let first = format!("{}.{namespace}", deployment.service);
    parse(text, &first, ANNOTATION).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_of_the_first_ones_namespace_unless_they_say_otherwise() {
        let links = parse("b, c.other ,d.openfaas-fn", "a.team", "here");
        assert_eq!(
            links,
            Ok(["b.team", "c.other", "d.openfaas-fn"].map(str::to_owned).to_vec())
        );
    }

    #[test]
    fn loops_and_what_names_nobody_are_refused() {
        for (text, says) in [
            ("", "is no function's name"),
            ("b,", "is no function's name"),
            ("B", "`B` in here"),
            ("b,a", "`a.x` twice"),
            ("b,c,b.x", "`b.x` twice"),
            ("b.", "is no function's name"),
            (
                &vec!["b"; LINKS_MAX + 1].join(","),
                "names 17 functions, more than the 16",
            ),
        ] {
            let error = parse(text, "a.x", "here").expect_err(text).to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_chain_is_bounded_and_leads_nowhere_twice(text in "[a-dA.,\\- ]{0,60}") {
            if let Ok(links) = parse(&text, "a.b", "here") {
                prop_assert!((1..=LINKS_MAX).contains(&links.len()));
                let mut all: Vec<_> = links.iter().map(String::as_str).chain(["a.b"]).collect();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(all.len(), links.len() + 1);
            }
        }
    }
}
