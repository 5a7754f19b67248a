//! The subscriptions of this node, found by what a notification is about, not by trying each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use crate::streams::Payload;
use crate::subscriptions::filter::{Subject, SubscriptionFilter, subject};
use crate::subscriptions::local::{LocalSubscription, SubscriptionEnd};
use crate::subscriptions::manager::SubscriptionKey;
use crate::sync::Mutex;

type Members = HashMap<SubscriptionKey, Arc<LocalSubscription>>;

#[derive(Default)]
struct State {
    all: HashMap<SubscriptionKey, (Arc<LocalSubscription>, SubscriptionFilter)>,
    tools: Members,
    prompts: Members,
    resources: Members,
    by_uri: HashMap<String, Members>,
    /// Those that get whatever can be subscribed to, and are in none of the others.
    everything: Members,
}

#[derive(Default)]
pub(crate) struct SubscriptionTable(Mutex<State>);

impl SubscriptionTable {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().all.len()
    }

    /// Registers a subscription; false when the key is taken.
    pub(crate) fn insert(
        &self,
        key: &SubscriptionKey,
        filter: SubscriptionFilter,
        it: &Arc<LocalSubscription>,
    ) -> bool {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        let Entry::Vacant(place) = state.all.entry(key.clone()) else { return false };
        let join = |wanted: bool, members: &mut Members| {
            if wanted {
                members.insert(key.clone(), it.clone());
            }
        };
        join(filter.everything, &mut state.everything);
        if !filter.everything {
            join(filter.tools_list_changed, &mut state.tools);
            join(filter.prompts_list_changed, &mut state.prompts);
            join(filter.resources_list_changed, &mut state.resources);
            for uri in &filter.resource_subscriptions {
                join(true, state.by_uri.entry(uri.clone()).or_default());
            }
        }
        place.insert((it.clone(), filter));
        true
    }

    pub(crate) fn get(&self, key: &SubscriptionKey) -> Option<Arc<LocalSubscription>> {
        self.0.lock().all.get(key).map(|(it, _)| it.clone())
    }

    /// Takes this very subscription out, in O(its filters).
    pub(crate) fn remove(&self, key: &SubscriptionKey, it: &Arc<LocalSubscription>) {
        let mut guard = self.0.lock();
        let state = &mut *guard;
        if !state.all.get(key).is_some_and(|(held, _)| Arc::ptr_eq(held, it)) {
            return;
        }
        let Some((_, filter)) = state.all.remove(key) else { return };
        state.tools.remove(key);
        state.prompts.remove(key);
        state.resources.remove(key);
        state.everything.remove(key);
        for uri in filter.resource_subscriptions {
            if let Entry::Occupied(mut members) = state.by_uri.entry(uri) {
                members.get_mut().remove(key);
                if members.get().is_empty() {
                    members.remove();
                }
            }
        }
    }

    pub(crate) fn of_origin(&self, origin: Option<&str>) -> Vec<(SubscriptionKey, Arc<LocalSubscription>)> {
        let state = self.0.lock();
        let wanted = state.all.iter().filter(|(key, _)| origin.is_none_or(|origin| key.origin() == origin));
        wanted.map(|(key, (it, _))| (key.clone(), it.clone())).collect()
    }

    /// Queues a notification for everybody who asked for it; returns how many were too slow and ended.
    pub(crate) fn deliver(&self, payload: &Payload) -> u64 {
        let mut full = Vec::new();
        {
            let state = self.0.lock();
            if state.all.is_empty() {
                return 0;
            }
            let members = match subject(payload) {
                Some(Subject::Tools) => Some(&state.tools),
                Some(Subject::Prompts) => Some(&state.prompts),
                Some(Subject::Resources) => Some(&state.resources),
                Some(Subject::Resource(uri)) => state.by_uri.get(&*uri),
                Some(Subject::Other) | None => return 0,
            };
            for (key, it) in members.into_iter().flatten().chain(&state.everything) {
                if !it.offer(payload) {
                    full.push((key.clone(), it.clone()));
                }
            }
        }
        for (key, it) in &full {
            self.remove(key, it);
            it.end(SubscriptionEnd::Overflow);
        }
        full.len() as u64
    }
}
