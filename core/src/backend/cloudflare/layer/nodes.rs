//! Nodes and their leases.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::guests::Kind;
use super::{Answer, Host, SyncLayer, keys};
use crate::backend::Topic;
use crate::backend::cloudflare::wire::{Limits, Reply, Told};

/// How often it is looked whether a node is still heard.
const NODE_CHECK_MS: u64 = 60_000;

/// A node, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Node {
    pub(super) limits: Limits,
    /// When it joined, or its socket was closed: a socket that is open knows better.
    heard_ms: u64,
    pub(super) kind: Kind,
}

impl Node {
    pub(super) fn new(limits: Limits, heard_ms: u64, kind: Kind) -> Self {
        Node { limits, heard_ms, kind }
    }
}

impl<H: Host> SyncLayer<H> {
    pub(super) fn stored_nodes(&self) -> HashMap<String, Node> {
        let mut nodes = HashMap::new();
        self.host.scan(keys::NODES, &keys::after(keys::NODES), usize::MAX, &mut |key, value| {
            let name = key.get(1..key.len() - 1).and_then(|name| String::from_utf8(name.to_vec()).ok());
            nodes.extend(name.zip(postcard::from_bytes(value).ok()));
        });
        nodes
    }

    pub(super) fn join(&mut self, id: &str, limits: Limits) -> Answer {
        if self.nodes.contains_key(id) {
            self.bury(id);
        }
        let node = Node::new(limits, self.host.now_ms(), Kind::Process);
        self.store(&keys::node(id), &node);
        self.nodes.insert(id.to_owned(), node);
        self.wake_at(self.host.now_ms() + NODE_CHECK_MS);
        Ok(Reply::Joined {
            broadcasts: self.topic(Topic::Broadcasts, &limits).log.head(),
            notifications: self.topic(Topic::Notifications, &limits).log.head(),
        })
    }

    /// A node has another socket.
    pub(super) fn resume(&mut self, id: &str) -> Reply {
        let kept = self.alive(id);
        match kept {
            true => self.heard(id, self.host.now_ms()),
            false => self.bury(id),
        }
        Reply::Resumed { kept }
    }

    fn heard(&mut self, id: &str, at_ms: u64) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        node.heard_ms = node.heard_ms.max(at_ms);
        let node = node.clone();
        self.store(&keys::node(id), &node);
    }

    pub(super) fn node_closed(&mut self, id: &str, heard_ms: u64) {
        self.heard(id, heard_ms);
        if self.is_guest(id) {
            return self.bury(id);
        }
        if let Some(end_ms) = self.lease_end_ms(id) {
            self.wake_at(end_ms);
        }
    }

    pub(super) fn leave(&mut self, id: &str) {
        self.bury(id);
    }

    /// When a node was last heard.
    pub(super) fn heard_ms(&self, id: &str) -> Option<u64> {
        let node = self.nodes.get(id)?;
        Some(node.heard_ms.max(self.host.heard_ms(id).unwrap_or(0)))
    }

    fn is_guest(&self, id: &str) -> bool {
        self.nodes.get(id).is_some_and(|node| node.kind != Kind::Process)
    }

    pub(super) fn lease_end_ms(&self, id: &str) -> Option<u64> {
        if self.is_guest(id) {
            // Its socket tells when it ends: then, or when this object crashed, which is not known any more.
            let now_ms = self.host.now_ms();
            return Some(if self.host.heard_ms(id).is_some() { u64::MAX } else { now_ms });
        }
        Some(self.heard_ms(id)?.saturating_add(self.nodes.get(id)?.limits.lease_ms))
    }

    pub(super) fn alive(&self, id: &str) -> bool {
        self.lease_end_ms(id).is_some_and(|end_ms| end_ms > self.host.now_ms())
    }

    /// Unholds what a node holds, and forgets it.
    fn bury(&mut self, id: &str) {
        for session in self.held_by(id) {
            if let Some(mut found) = self.stored_session(&session)
                && found.holder.as_deref() == Some(id)
            {
                self.unhold(&session, &mut found, None);
                found.lost = true;
                self.keep(&session, &mut found);
            }
            self.note_unheld(id, &session);
        }
        self.forget_node(id);
    }

    fn held_by(&self, id: &str) -> Vec<String> {
        match self.nodes.get(id).map(|node| &node.kind) {
            Some(Kind::Stream { session, .. }) => return vec![session.clone()],
            Some(Kind::Listener { .. }) => return Vec::new(),
            _ => {}
        }
        let prefix = keys::held(id, "");
        let mut held = Vec::new();
        self.host.scan(&prefix, &keys::after(&prefix), usize::MAX, &mut |key, _| {
            held.extend(String::from_utf8(key[prefix.len()..].to_vec()).ok());
        });
        held
    }

    /// Notes what a process holds; a Worker's stream says itself whose it is.
    pub(super) fn note_held(&self, node: &str, session: &str) {
        if !self.is_guest(node) {
            self.host.put(&keys::held(node, session), &[]);
        }
    }

    pub(super) fn note_unheld(&self, node: &str, session: &str) {
        if !self.is_guest(node) {
            self.host.delete(&keys::held(node, session));
        }
    }

    pub(super) fn forget_node(&mut self, id: &str) {
        self.nodes.remove(id);
        self.places.remove(id);
        self.host.delete(&keys::node(id));
    }

    /// A node whose lease ran out is told, in case that it still listens.
    pub(super) fn bury_dead(&mut self, id: &str) {
        self.bury(id);
        self.say(id, Told::Lost);
    }

    pub(super) fn bury_dead_nodes(&mut self) {
        let dead: Vec<_> = self.nodes.keys().filter(|id| !self.alive(id)).cloned().collect();
        dead.iter().for_each(|id| self.bury_dead(id));
    }

    /// When to look at the nodes again: at the end of a lease whose socket is gone.
    pub(super) fn next_node_check(&self) -> Option<u64> {
        let later_ms = self.host.now_ms() + NODE_CHECK_MS;
        let processes = self.nodes.iter().filter(|(_, node)| node.kind == Kind::Process);
        let next = |id: &String| match self.host.heard_ms(id) {
            Some(_) => Some(later_ms),
            None => self.lease_end_ms(id),
        };
        processes.filter_map(|(id, _)| next(id)).min()
    }
}
