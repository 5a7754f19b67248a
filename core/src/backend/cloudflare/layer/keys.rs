//! Keys of the sync layer's storage: one byte says what it is, then whose. Names hold no zero byte,
//! so one ends them.

/// `S` session, `L` event, `K` idempotency key, `O` the keys in order, `I` info, `U` a session's
/// resource, `R` a resource's session, `D` what is due, `N` node, `H` what a node holds, `A` the alarm,
/// `E` the owner epochs, `G` the limits of Workers; of the registry: `X` a session's entry, `M` its metadata, `V` what is due, `W` an
/// owner's session, `Y` the key owners are hashed with; `Q` a log of a scope.
fn key(kind: u8, name: &str, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + name.len() + rest.len());
    key.push(kind);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key.extend_from_slice(rest);
    key
}

pub(super) fn session(id: &str) -> Vec<u8> {
    key(b'S', id, &[])
}

pub(super) fn event(log: &str, offset: u64) -> Vec<u8> {
    key(b'L', log, &offset.to_be_bytes())
}

pub(super) fn idempotency(log: &str, name: &str) -> Vec<u8> {
    key(b'K', log, name.as_bytes())
}

pub(super) fn idempotency_order(log: &str, number: u64) -> Vec<u8> {
    key(b'O', log, &number.to_be_bytes())
}

pub(super) fn info(id: &str) -> Vec<u8> {
    key(b'I', id, &[])
}

pub(super) fn resource(id: &str, uri: &str) -> Vec<u8> {
    key(b'U', id, uri.as_bytes())
}

/// A URI may hold anything, so its length goes first.
pub(super) fn subscriber(uri: &str, id: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(5 + uri.len() + id.len());
    key.push(b'R');
    key.extend_from_slice(&(uri.len() as u32).to_be_bytes());
    key.extend_from_slice(uri.as_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

pub(super) fn due(at_ms: u64, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + name.len());
    key.push(b'D');
    key.extend_from_slice(&at_ms.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// When and who, of a key that [`due`] made.
pub(super) fn read_due(key: &[u8]) -> Option<(u64, String)> {
    let at = u64::from_be_bytes(key.get(1..9)?.try_into().ok()?);
    Some((at, String::from_utf8(key.get(9..)?.to_vec()).ok()?))
}

pub(super) fn node(id: &str) -> Vec<u8> {
    key(b'N', id, &[])
}

pub(super) fn held(node: &str, id: &str) -> Vec<u8> {
    key(b'H', node, id.as_bytes())
}

pub(super) fn entry(id: &str) -> Vec<u8> {
    key(b'X', id, &[])
}

pub(super) fn metadata(id: &str) -> Vec<u8> {
    key(b'M', id, &[])
}

pub(super) fn registry_due(at_ms: u64, id: &str) -> Vec<u8> {
    let mut key = due(at_ms, id);
    key[0] = b'V';
    key
}

pub(super) fn owned_by(owner: &str) -> Vec<u8> {
    key(b'W', owner, &[])
}

pub(super) fn owned(owner: &str, created_ms: u64, id: &str) -> Vec<u8> {
    key(b'W', owner, &[&created_ms.to_be_bytes(), id.as_bytes()].concat())
}

pub(super) fn note(scope: &str, log: &str) -> Vec<u8> {
    key(b'Q', scope, log.as_bytes())
}

pub(super) const ENTRIES: &[u8] = b"X";
pub(super) const REGISTRY_DUE: &[u8] = b"V";
pub(super) const OWNER_KEY: &[u8] = b"Y";
pub(super) const GUEST_LIMITS: &[u8] = b"G";
pub(super) const ALARM: &[u8] = b"A";
pub(super) const OWNER_EPOCHS: &[u8] = b"E";
pub(super) const NODES: &[u8] = b"N";
pub(super) const DUE: &[u8] = b"D";

/// The first key after all that begin with this.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 2]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_before_its_neighbour() {
        let (own, other) = (resource("u", "x"), resource("u1", "x"));
        let prefix = resource("u", "");
        assert!(own >= prefix && own < after(&prefix));
        assert!(!(other >= prefix && other < after(&prefix)));
        assert_eq!(after(b"a\xff"), b"b");
    }

    #[test]
    fn one_resource_is_not_the_beginning_of_another() {
        let (short, long) = (subscriber("u1", ""), subscriber("u1:x", "s"));
        assert!(!long.starts_with(&short));
    }
}
