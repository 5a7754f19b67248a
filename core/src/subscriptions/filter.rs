//! Which notifications a subscription asks for.

use std::borrow::Cow;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The filters of a `subscriptions/listen` request: only what is asked for is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(feature = "sync-layer", derive(serde::Serialize))]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct SubscriptionFilter {
    /// `notifications/tools/list_changed`.
    pub tools_list_changed: bool,
    /// `notifications/prompts/list_changed`.
    pub prompts_list_changed: bool,
    /// `notifications/resources/list_changed`.
    pub resources_list_changed: bool,
    /// `notifications/resources/updated` of these URIs.
    pub resource_subscriptions: Vec<String>,
    /// All of these notifications, of any URI: for a bus that filters by itself. No client can ask for it.
    #[serde(skip)]
    pub everything: bool,
}

impl SubscriptionFilter {
    /// Whatever can be subscribed to; see [`everything`](Self::everything).
    pub fn everything() -> Self {
        SubscriptionFilter { everything: true, ..SubscriptionFilter::default() }
    }

    /// Whether a notification about this is asked for.
    #[cfg(feature = "sync-layer")]
    pub(crate) fn wants(&self, subject: &Subject<'_>) -> bool {
        match subject {
            Subject::Tools => self.tools_list_changed,
            Subject::Prompts => self.prompts_list_changed,
            Subject::Resources => self.resources_list_changed,
            Subject::Resource(uri) => self.resource_subscriptions.iter().any(|wanted| wanted == uri),
            Subject::Other => false,
        }
    }

    /// Reads filters from the JSON of a request. Fails with `invalid_input`.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|cause| {
            Error::invalid("subscriptions.create", format!("the filters are not understood: {cause}"))
        })
    }
}

/// What a notification is about, as far as filters ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject<'a> {
    Tools,
    Prompts,
    Resources,
    Resource(Cow<'a, str>),
    /// Nothing that can be subscribed to.
    Other,
}

#[derive(Deserialize)]
struct Method<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Updated<'a> {
    #[serde(borrow)]
    params: UpdatedParams<'a>,
}

#[derive(Deserialize)]
struct UpdatedParams<'a> {
    #[serde(borrow)]
    uri: Cow<'a, str>,
}

/// Reads the subject of a JSON-RPC notification; `None` when it is none.
pub(crate) fn subject(json: &str) -> Option<Subject<'_>> {
    let Method { method } = serde_json::from_str(json).ok()?;
    Some(match &*method {
        "notifications/tools/list_changed" => Subject::Tools,
        "notifications/prompts/list_changed" => Subject::Prompts,
        "notifications/resources/list_changed" => Subject::Resources,
        // Params of other methods may have any shape, so only these are read.
        "notifications/resources/updated" => {
            let updated: Option<Updated<'_>> = serde_json::from_str(json).ok();
            updated.map_or(Subject::Other, |updated| Subject::Resource(updated.params.uri))
        }
        _ => Subject::Other,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subjects() {
        let of = |method: &str| subject(&format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)).is_some();
        assert!(of("notifications/tools/list_changed"));
        assert_eq!(
            subject(r#"{"method":"notifications/resources/updated","params":{"uri":"a\"b"}}"#),
            Some(Subject::Resource("a\"b".into()))
        );
        assert_eq!(
            subject(r#"{"method":"notifications/resources/updated","params":{"uri":7}}"#),
            Some(Subject::Other)
        );
        assert_eq!(subject(r#"{"method":"x","params":[1]}"#), Some(Subject::Other));
        assert_eq!(subject(r#"{"id":1}"#), None);
    }

    #[test]
    fn no_client_asks_for_everything() {
        let filter =
            SubscriptionFilter::from_json(r#"{"everything": true, "toolsListChanged": true}"#).unwrap();
        assert!(!filter.everything && filter.tools_list_changed);
    }

    proptest! {
        #[test]
        fn any_uri_is_read_as_it_was_written(uri in ".{0,40}") {
            let json = serde_json::json!({"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":uri}});
            let json = json.to_string();
            prop_assert_eq!(subject(&json), Some(Subject::Resource(uri.into())));
        }

        #[test]
        fn noise_never_panics(json in ".{0,60}") {
            let _ = subject(&json);
            let _ = SubscriptionFilter::from_json(&json);
        }
    }
}
