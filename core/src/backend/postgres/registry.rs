//! The session registry and the event log: each operation is one function.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::each::{by_lock, column, done, settle};
use super::{Inner, Parameter, SWEEP_BATCH, count, fault, millis, node, uuid, wire};
use crate::backend::{
    ActiveRequests, Append, CloseStart, ListQuery, Listed, NewSession, Reason, RegistryStats, Swept, Touch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::info::Json;
use crate::registry::{OwnerHash, SessionRecord, SessionState};
use crate::session::{NodeId, SessionId};
use crate::streams::Position;

impl Inner {
    pub(super) async fn keep_key(&self, candidate: [u8; 32]) -> Result<[u8; 32]> {
        const OPERATION: &str = "registry.key";
        let text: String = candidate.iter().map(|byte| format!("{byte:02x}")).collect();
        let statement = &self.statements.registry_key;
        let rows = self.ask(&self.writes, OPERATION, statement, &[(&text, Type::TEXT)]).await?;
        let kept = rows.first().and_then(|row| row.try_get::<_, &str>(0).ok()).and_then(key_of);
        kept.ok_or_else(|| fault::unreadable(OPERATION))
    }

    pub(super) async fn register(&self, sessions: Vec<(SessionId, NewSession)>) -> Vec<Result<bool>> {
        const OPERATION: &str = "registry.create";
        let Some((_, first)) = sessions.first() else { return Vec::new() };
        // All are of this node.
        let (its_node, stale) = (uuid(&first.node), millis(self.options.registry.stale_ms));
        let order = by_lock(&sessions, |(session, _)| session.as_str());
        let ids = column(&sessions, &order, |(session, _)| session.as_str());
        let owners = column(&sessions, &order, |(_, new)| new.owner.map(OwnerHash::to_hex));
        let metadata = column(&sessions, &order, |(_, new)| {
            new.metadata.as_ref().map(|json| wire::stored(json.as_str()))
        });
        let parameters: [Parameter<'_>; 5] = [
            (&ids, Type::TEXT_ARRAY),
            (&owners, Type::TEXT_ARRAY),
            (&metadata, Type::TEXT_ARRAY),
            (&its_node, Type::TEXT),
            (&stale, Type::INT8),
        ];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.registry_create, &parameters).await;
        settle(OPERATION, &order, rows, |_, row| row.try_get(1).ok(), || Err(fault::unreadable(OPERATION)))
    }

    /// The record of one session for each, who may be its owner or not.
    pub(super) async fn record_each(
        &self,
        asked: Vec<(SessionId, Touch)>,
    ) -> Vec<Result<Option<SessionRecord>>> {
        const OPERATION: &str = "registry.get";
        let order = by_lock(&asked, |(session, _)| session.as_str());
        let ids = column(&asked, &order, |(session, _)| session.as_str());
        let whose = column(&asked, &order, |(_, touch)| touch_of(*touch).0);
        let owners = column(&asked, &order, |(_, touch)| touch_of(*touch).1);
        let every = self.touch_ms();
        let parameters: [Parameter<'_>; 4] = [
            (&ids, Type::TEXT_ARRAY),
            (&whose, Type::TEXT_ARRAY),
            (&owners, Type::TEXT_ARRAY),
            (&every, Type::INT8),
        ];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.registry_read_each, &parameters).await;
        let read = |at: usize, row: &Row| Some(record_of(OPERATION, &asked[at].0, row).map(Some));
        let records = settle(OPERATION, &order, rows, read, || Ok(Ok(None)));
        records.into_iter().map(|record| record.and_then(|record| record)).collect()
    }

    pub(super) async fn records(
        &self,
        sessions: &[SessionId],
        touch: Touch,
    ) -> Result<Vec<Option<SessionRecord>>> {
        const OPERATION: &str = "registry.get";
        let ids: Vec<_> = sessions.iter().map(SessionId::as_str).collect();
        let ((whose, owner), every) = (touch_of(touch), self.touch_ms());
        let parameters: [Parameter<'_>; 4] =
            [(&ids, Type::TEXT_ARRAY), (&whose, Type::TEXT), (&owner, Type::TEXT), (&every, Type::INT8)];
        // Behind what this node wrote before.
        let rows = self.ask(&self.writes, OPERATION, &self.statements.registry_read, &parameters).await?;
        let mut records: Vec<_> = sessions.iter().map(|_| None).collect();
        for row in &rows {
            let nth = usize::try_from(row.try_get::<_, i32>(0).unwrap_or(0) - 1).ok();
            let Some((at, session)) = nth.and_then(|nth| Some((nth, sessions.get(nth)?))) else {
                return Err(fault::unreadable(OPERATION));
            };
            records[at] = Some(record_of(OPERATION, session, row)?);
        }
        Ok(records)
    }

    pub(super) async fn report(&self, reports: &[ActiveRequests]) -> Vec<Result<bool>> {
        const OPERATION: &str = "registry.begin_request";
        let ids: Vec<_> = reports.iter().map(|report| report.session.as_str()).collect();
        let counts: Vec<_> = reports.iter().map(|report| report.count.min(i32::MAX as u32) as i32).collect();
        let parameters: [Parameter<'_>; 3] =
            [(&self.me(), Type::TEXT), (&ids, Type::TEXT_ARRAY), (&counts, Type::INT4_ARRAY)];
        let statement = &self.statements.registry_report;
        let rows = match self.ask(&self.writes, OPERATION, statement, &parameters).await {
            Ok(rows) => rows,
            Err(error) => return reports.iter().map(|_| Err(error.duplicate())).collect(),
        };
        let mut outcomes: Vec<_> = reports.iter().map(|_| Err(fault::unreadable(OPERATION))).collect();
        for row in &rows {
            let nth = usize::try_from(row.try_get::<_, i32>(0).unwrap_or(0) - 1).ok();
            if let (Some(slot), Ok(open)) = (nth.and_then(|nth| outcomes.get_mut(nth)), row.try_get(1)) {
                *slot = Ok(open);
            }
        }
        outcomes
    }

    pub(super) async fn adopt(&self, session: &SessionId, by: &NodeId) -> Result<bool> {
        let (id, by) = (session.as_str(), uuid(by));
        let parameters: [Parameter<'_>; 2] = [(&id, Type::TEXT), (&by, Type::TEXT)];
        self.asked(&self.writes, "registry.adopt", &self.statements.registry_adopt, &parameters).await
    }

    /// When a closing that nobody finished is taken on by somebody else, from its beginning.
    fn unfinished_ms(&self) -> i64 {
        millis(2 * self.options.lease.ttl_ms)
    }

    pub(super) async fn start_close(&self, sessions: Vec<(SessionId, Reason)>) -> Vec<Result<CloseStart>> {
        const OPERATION: &str = "registry.close";
        let grace = self.unfinished_ms();
        let order = by_lock(&sessions, |(session, _)| session.as_str());
        let ids = column(&sessions, &order, |(session, _)| session.as_str());
        let reasons: Vec<&str> = column(&sessions, &order, |(_, reason)| &**reason);
        let parameters: [Parameter<'_>; 3] =
            [(&ids, Type::TEXT_ARRAY), (&reasons, Type::TEXT_ARRAY), (&grace, Type::INT8)];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.registry_close, &parameters).await;
        let read = |_, row: &Row| match row.try_get(1).ok()? {
            "begun" => Some(CloseStart::Begun),
            "underway" => Some(CloseStart::Underway),
            "gone" => Some(CloseStart::Gone),
            _ => None,
        };
        settle(OPERATION, &order, rows, read, || Err(fault::unreadable(OPERATION)))
    }

    pub(super) async fn bury_sessions(&self, sessions: Vec<SessionId>) -> Vec<Result<()>> {
        let stays = millis(self.options.registry.tombstone_ms);
        let ids: Vec<_> = sessions.iter().map(SessionId::as_str).collect();
        let parameters: [Parameter<'_>; 2] = [(&ids, Type::TEXT_ARRAY), (&stays, Type::INT8)];
        let statement = &self.statements.registry_bury;
        let buried = self.ask(&self.writes, "registry.close", statement, &parameters).await;
        done(sessions.len(), &buried)
    }

    pub(super) async fn forget_each(&self, sessions: Vec<SessionId>) -> Vec<Result<bool>> {
        const OPERATION: &str = "streams.forget";
        let order = by_lock(&sessions, SessionId::as_str);
        let ids = column(&sessions, &order, SessionId::as_str);
        let rows =
            self.ask(&self.writes, OPERATION, &self.statements.forget, &[(&ids, Type::TEXT_ARRAY)]).await;
        settle(OPERATION, &order, rows, |_, row| row.try_get(1).ok(), || Err(fault::unreadable(OPERATION)))
    }

    /// An access is noted once in this time.
    fn touch_ms(&self) -> i64 {
        millis(self.options.registry.stale_ms / 20)
    }

    pub(super) async fn owned(&self, owner: &OwnerHash) -> Result<Vec<SessionId>> {
        const OPERATION: &str = "registry.get_by_owner";
        let owner = owner.to_hex();
        let statement = &self.statements.registry_owned;
        let rows = self.ask(&self.writes, OPERATION, statement, &[(&owner, Type::TEXT)]).await?;
        Ok(sessions(&rows))
    }

    pub(super) async fn list_sessions(&self, query: ListQuery) -> Result<Listed> {
        const OPERATION: &str = "registry.list";
        let after = query.after.as_deref().map(SessionId::new).transpose()?;
        let after = after.as_ref().map_or("", SessionId::as_str);
        let (owner, by) = (query.owner.map(OwnerHash::to_hex), query.node.as_ref().map(uuid));
        // One more tells whether there is a next page.
        let most = count(query.limit + 1);
        let parameters: [Parameter<'_>; 4] =
            [(&owner, Type::TEXT), (&by, Type::TEXT), (&after, Type::TEXT), (&most, Type::INT8)];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.registry_list, &parameters).await?;
        let mut sessions = sessions(&rows);
        let more = sessions.len() > query.limit;
        sessions.truncate(query.limit);
        let next = more.then(|| sessions.last().map(ToString::to_string)).flatten();
        Ok(Listed { sessions, next })
    }

    pub(super) async fn count_sessions(&self) -> Result<RegistryStats> {
        const OPERATION: &str = "registry.stats";
        let stale = millis(self.options.registry.stale_ms);
        let statement = &self.statements.registry_stats;
        let rows = self.ask(&self.writes, OPERATION, statement, &[(&stale, Type::INT8)]).await?;
        let mut stats = RegistryStats { by_node: BTreeMap::new(), ..RegistryStats::default() };
        for row in &rows {
            let number = |at: usize| row.try_get::<_, i64>(at).map(|n| n.max(0) as u64);
            let (Ok(id), Ok(total), Ok(stale), Ok(closing)) =
                (row.try_get::<_, &str>(0), number(1), number(2), number(3))
            else {
                return Err(fault::unreadable(OPERATION));
            };
            let id = node(id).ok_or_else(|| fault::unreadable(OPERATION))?;
            stats.by_node.insert(id, total);
            stats.total += total;
            stats.stale += stale;
            stats.closing += closing;
        }
        stats.active = stats.total.saturating_sub(stats.stale + stats.closing);
        Ok(stats)
    }

    pub(super) async fn sweep_registry(&self) -> Result<Swept> {
        const OPERATION: &str = "registry.sweep";
        let options = &self.options.registry;
        let limits = [SWEEP_BATCH, millis(options.stale_ms), millis(options.sweep_ms), self.unfinished_ms()];
        let parameters = limits.each_ref().map(|limit| (limit as _, Type::INT8));
        let rows = self.ask(&self.reads, OPERATION, &self.statements.registry_sweep, &parameters).await?;
        let row = rows.first().ok_or_else(|| fault::unreadable(OPERATION))?;
        let ids = |at: usize| {
            let ids = row.try_get::<_, Vec<&str>>(at).ok();
            ids.map(|ids| ids.into_iter().filter_map(|id| SessionId::new(id).ok()).collect())
        };
        match (ids(0), ids(1), row.try_get(2)) {
            (Some(stale), Some(unfinished), Ok(more)) => Ok(Swept { stale, unfinished, more }),
            _ => Err(fault::unreadable(OPERATION)),
        }
    }

    pub(super) async fn append(&self, events: Vec<Append>) -> Vec<Result<Position>> {
        const OPERATION: &str = "events.append";
        let order = by_lock(&events, |event| event.log.as_str());
        let scopes = column(&events, &order, |event| event.scope.as_str());
        let logs = column(&events, &order, |event| event.log.as_str());
        let notes = column(&events, &order, |event| event.note);
        let payloads = column(&events, &order, |event| wire::stored(event.payload.as_str()));
        let retention = &self.options.retention;
        let limits = [count(retention.events), count(retention.bytes), millis(retention.age_ms)];
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&scopes, Type::TEXT_ARRAY),
            (&logs, Type::TEXT_ARRAY),
            (&notes, Type::BOOL_ARRAY),
            (&payloads, Type::TEXT_ARRAY),
        ];
        parameters.extend(limits.iter().map(|limit| (limit as _, Type::INT8)));
        let rows = self.ask(&self.writes, OPERATION, &self.statements.append, &parameters).await;
        let read = |_, row: &Row| Some(wire::position(row.try_get(1).ok()?, row.try_get(2).ok()?));
        settle(OPERATION, &order, rows, read, || Err(fault::unreadable(OPERATION)))
    }

    pub(super) async fn logs_of(&self, scopes: Vec<SessionId>) -> Vec<Result<Vec<SessionId>>> {
        const OPERATION: &str = "events.forget";
        let order: Vec<_> = (0..scopes.len()).collect();
        let ids = column(&scopes, &order, SessionId::as_str);
        let rows =
            self.ask(&self.writes, OPERATION, &self.statements.logs_of, &[(&ids, Type::TEXT_ARRAY)]).await;
        let read = |_, row: &Row| {
            let logs: Vec<&str> = row.try_get(1).ok()?;
            Some(logs.into_iter().filter_map(SessionId::stored).collect())
        };
        settle(OPERATION, &order, rows, read, || Err(fault::unreadable(OPERATION)))
    }

    pub(super) async fn drop_logs(&self, scoped: Vec<(SessionId, Vec<SessionId>)>) -> Vec<Result<()>> {
        let each = scoped.iter().flat_map(|(scope, logs)| logs.iter().map(move |log| (scope, log)));
        let (scopes, logs): (Vec<_>, Vec<_>) =
            each.map(|(scope, log)| (scope.as_str(), log.as_str())).unzip();
        let parameters: [Parameter<'_>; 2] = [(&scopes, Type::TEXT_ARRAY), (&logs, Type::TEXT_ARRAY)];
        let statement = &self.statements.drop_logs;
        let dropped = self.ask(&self.writes, "events.forget", statement, &parameters).await;
        done(scoped.len(), &dropped)
    }
}

fn sessions(rows: &[Row]) -> Vec<SessionId> {
    let ids = rows.iter().filter_map(|row| row.try_get::<_, &str>(0).ok());
    ids.filter_map(SessionId::stored).collect()
}

fn key_of(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0; 32];
    for (byte, at) in key.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(key)
}

/// Whose access counts, as the functions call it.
fn touch_of(touch: Touch) -> (&'static str, Option<String>) {
    match touch {
        Touch::No => ("n", None),
        Touch::Yes => ("y", None),
        Touch::IfOwner(owner) => ("o", owner.map(OwnerHash::to_hex)),
    }
}

fn record_of(operation: &'static str, session: &SessionId, row: &Row) -> Result<SessionRecord> {
    read_record(session, row).ok_or_else(|| {
        let message = format!("the stored record of session {session} can't be read");
        Error::new(ErrorKind::Corrupt, operation, message)
    })
}

fn read_record(session: &SessionId, row: &Row) -> Option<SessionRecord> {
    let text = |at: usize| row.try_get::<_, Option<&str>>(at).ok();
    let ms = |at: usize| row.try_get::<_, i64>(at).ok().and_then(|ms| u64::try_from(ms).ok());
    let state = match text(5)?? {
        "o" => SessionState::Active,
        "c" => SessionState::Closing,
        "d" => SessionState::Closed,
        _ => return None,
    };
    let mut record = SessionRecord::new(session.clone(), node(text(2)??)?, state);
    record.owner = match text(1)? {
        Some(owner) => Some(OwnerHash::from_hex(owner)?),
        None => None,
    };
    record.created_ms = ms(3)?;
    record.last_access_ms = ms(4)?;
    record.reason = text(6)?.map(Into::into);
    record.metadata = match text(7)? {
        Some(json) => Some(Json::parse(&wire::restored(json)).ok()?),
        None => None,
    };
    record.active_requests = ms(8)?;
    record.now_ms = ms(9)?;
    Some(record)
}
