//! Names of functions and namespaces. Pure.

use http::Uri;

use crate::routes::parameter;

/// The namespace that is always there.
pub(crate) const DEFAULT_NAMESPACE: &str = "openfaas-fn";
/// Longest name of a function or namespace: a DNS label.
const MAX_NAME_BYTES: usize = 63;

/// Whether the text is a DNS label.
pub(crate) fn is_name(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.chars().all(|c| word(c) || c == '-')
        && text.starts_with(word)
        && text.ends_with(word)
}

/// A bounded part of a name that somebody sent, for error messages.
pub(crate) fn excerpt(name: &str) -> String {
    name.chars().take(130).collect()
}

/// Which function a request means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionId {
    pub(crate) name: String,
    pub(crate) namespace: String,
}

impl FunctionId {
    /// The function called `name`, which may be `NAME.NAMESPACE`. The first of these that is not empty is its namespace:
    /// the one of the body, the one of the query, the one in the name, the default one.
    pub(crate) fn new(name: &str, of_body: &str, uri: &Uri) -> Self {
        let of_query = parameter(uri, "namespace").unwrap_or_default();
        let (name, of_name) = name.rsplit_once('.').unwrap_or((name, ""));
        let namespace = [of_body, &of_query, of_name]
            .into_iter()
            .find(|namespace| !namespace.is_empty());
        Self {
            name: name.to_owned(),
            namespace: namespace.unwrap_or(DEFAULT_NAMESPACE).to_owned(),
        }
    }

    /// What the function is known by among all.
    pub(crate) fn key(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }

    /// As the sandbox knows it: its name alone as long as that says enough.
    pub(crate) fn short(&self) -> String {
        if self.namespace == DEFAULT_NAMESPACE {
            self.name.clone()
        } else {
            self.key()
        }
    }
}

/// The namespace that a request means which concerns no function: that of the body or the query, or the default one.
pub(crate) fn namespace_of(of_body: &str, uri: &Uri) -> String {
    FunctionId::new("", of_body, uri).namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_goes_before_query_and_query_before_name() {
        let key = |name: &str, of_body: &str, uri: &str| {
            let id = FunctionId::new(name, of_body, &uri.parse().expect("a URI"));
            (id.key(), id.short())
        };
        let both = |text: &str| (text.to_owned(), text.to_owned());
        assert_eq!(key("a", "", "/x"), ("a.openfaas-fn".to_owned(), "a".to_owned()));
        assert_eq!(key("a.b", "", "/x?namespace="), both("a.b"));
        assert_eq!(key("a.b", "", "/x?namespace=c"), both("a.c"));
        assert_eq!(key("a.b", "d", "/x?namespace=c"), both("a.d"));
        assert_eq!(namespace_of("", &"/x?namespace=c".parse().expect("a URI")), "c");
    }
}
