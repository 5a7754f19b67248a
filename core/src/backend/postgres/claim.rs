//! Claims and releases, many as one statement, and what logs hold.

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{Inner, Parameter, fault, millis, node, wire};
use crate::backend::{Claim, Claimed, LogEntry, Reclaim, Release, Start, Tail, Topic, TopicEntry, TopicTail};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{NodeId, SessionId};
use crate::streams::{Position, Positions};

const OPEN: &str = "streams.open";
const READ: &str = "streams.read";
/// How often a claim is tried whose session was removed meanwhile.
const TRIES: usize = 4;

/// Positions in columns.
#[derive(Default)]
struct Columns {
    own_epoch: Vec<i64>,
    own: Vec<i64>,
    shared_epoch: Vec<i64>,
    shared: Vec<i64>,
}

impl Columns {
    fn push(&mut self, at: Positions) {
        self.own_epoch.push(wire::signed(at.session.epoch));
        self.own.push(wire::offset(at.session.offset));
        self.shared_epoch.push(wire::signed(at.broadcast.epoch));
        self.shared.push(wire::offset(at.broadcast.offset));
    }

    fn parameters(&self) -> [Parameter<'_>; 4] {
        [&self.own_epoch, &self.own, &self.shared_epoch, &self.shared]
            .map(|column| (column as &(dyn ToSql + Sync), Type::INT8_ARRAY))
    }
}

/// Eight columns from `at` on: start, gap, own events, broadcasts.
fn tail(row: &Row, at: usize) -> Option<Tail> {
    let start = Positions {
        session: wire::position(row.try_get(at).ok()?, row.try_get(at + 1).ok()?),
        broadcast: wire::position(row.try_get(at + 2).ok()?, row.try_get(at + 3).ok()?),
    };
    let shareds: Option<Vec<i64>> = row.try_get(at + 5).ok()?;
    let payloads: Option<Vec<&str>> = row.try_get(at + 6).ok()?;
    let own = shareds.unwrap_or_default().into_iter().zip(payloads.unwrap_or_default());
    let own = own.zip(start.session.offset + 1..).map(|((shared, payload), offset)| LogEntry {
        offset,
        after_broadcast: start.broadcast.at(shared.max(0) as u64),
        payload: wire::restored(payload).as_ref().into(),
    });
    Some(Tail {
        start,
        gap: row.try_get(at + 4).ok()?,
        own: own.collect(),
        broadcasts: entries(row, at + 7, start.broadcast)?,
    })
}

fn entries(row: &Row, at: usize, start: Position) -> Option<Vec<TopicEntry>> {
    let payloads: Option<Vec<&str>> = row.try_get(at).ok()?;
    let payloads = payloads.unwrap_or_default().into_iter().zip(start.offset + 1..);
    let entry = |(payload, offset)| TopicEntry { offset, payload: wire::restored(payload).as_ref().into() };
    Some(payloads.map(entry).collect())
}

fn claimed(claim: &Claim, row: &Row) -> Result<Claimed> {
    let id = &claim.session;
    match row.try_get(1) {
        Ok("ok") => {
            let owner_epoch: Option<i64> = row.try_get(2).ok();
            let claimed = owner_epoch.zip(tail(row, 3));
            claimed
                .map(|(owner_epoch, tail)| Claimed { owner_epoch: owner_epoch as u64, tail })
                .ok_or_else(|| fault::unreadable(OPEN))
        }
        Ok("lease") => Err(fault::no_lease(OPEN)),
        Ok("gone") => Err(Error::new(
            ErrorKind::NotFound,
            OPEN,
            format!("session {id} has been closed; answer 404, and the client starts a new one"),
        )),
        Ok("conflict") => Err(Error::new(
            ErrorKind::Conflict,
            OPEN,
            format!("session {id} has a stream already; close it, or open with replace"),
        )),
        Ok("again") => Err(Error::new(
            ErrorKind::Unavailable,
            OPEN,
            format!("session {id} is being removed and opened by several at once"),
        )),
        _ => Err(fault::unreadable(OPEN)),
    }
}

fn is_again(row: &Row) -> bool {
    matches!(row.try_get(1), Ok("again"))
}

impl Inner {
    pub(super) async fn claim_all(&self, claims: Vec<Claim>) -> Vec<Result<Claimed>> {
        let mut outcomes: Vec<Option<Result<Claimed>>> = claims.iter().map(|_| None).collect();
        for turn in 1..=TRIES {
            let left: Vec<usize> = (0..claims.len()).filter(|n| outcomes[*n].is_none()).collect();
            if left.is_empty() {
                break;
            }
            let asked: Vec<&Claim> = left.iter().map(|n| &claims[*n]).collect();
            match self.claim_some(&asked).await {
                Ok(rows) => {
                    for row in &rows {
                        let nth: i32 = row.try_get(0).unwrap_or(0);
                        let at = usize::try_from(nth - 1).ok().and_then(|nth| left.get(nth));
                        if let Some(at) = at.filter(|_| turn == TRIES || !is_again(row)) {
                            outcomes[*at] = Some(claimed(&claims[*at], row));
                        }
                    }
                }
                Err(error) => left.iter().for_each(|n| outcomes[*n] = Some(Err(error.duplicate()))),
            }
        }
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(fault::unreadable(OPEN)))).collect()
    }

    async fn claim_some(&self, claims: &[&Claim]) -> Result<Vec<Row>> {
        let Some(node) = claims.first().map(|claim| super::uuid(&claim.node)) else { return Ok(Vec::new()) };
        let ids: Vec<_> = claims.iter().map(|claim| claim.session.as_str()).collect();
        let replace: Vec<_> = claims.iter().map(|claim| claim.replace).collect();
        let fresh: Vec<_> = claims.iter().map(|claim| claim.start == Start::Fresh).collect();
        let mut columns = Columns::default();
        for claim in claims {
            columns.push(match claim.start {
                Start::Cursor(at) | Start::Delivered(at) => at,
                Start::Fresh => Positions::default(),
            });
        }
        let (limits, relaxed) = (self.limits(), self.address.relaxed);
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&node, Type::TEXT),
            (&ids, Type::TEXT_ARRAY),
            (&replace, Type::BOOL_ARRAY),
            (&fresh, Type::BOOL_ARRAY),
        ];
        parameters.extend(columns.parameters());
        parameters.extend(limits.iter().map(|limit| (limit as &(dyn ToSql + Sync), Type::INT8)));
        parameters.push((&relaxed, Type::BOOL));
        self.ask(&self.writes, OPEN, &self.statements.claim, &parameters).await
    }

    pub(super) async fn reclaim(&self, node: &NodeId, held: &[Reclaim]) -> Result<Vec<Option<Tail>>> {
        const OPERATION: &str = "streams.reclaim";
        let node = super::uuid(node);
        let ids: Vec<_> = held.iter().map(|held| held.session.as_str()).collect();
        let owners: Vec<_> = held.iter().map(|held| held.owner_epoch as i64).collect();
        let mut columns = Columns::default();
        held.iter().for_each(|held| columns.push(held.after));
        let limits = self.limits();
        let mut parameters: Vec<Parameter<'_>> =
            vec![(&node, Type::TEXT), (&ids, Type::TEXT_ARRAY), (&owners, Type::INT8_ARRAY)];
        parameters.extend(columns.parameters());
        parameters.extend(limits.iter().map(|limit| (limit as &(dyn ToSql + Sync), Type::INT8)));
        let rows = self.ask(&self.writes, OPERATION, &self.statements.reclaim, &parameters).await?;
        let mut tails: Vec<_> = held.iter().map(|_| None).collect();
        for row in &rows {
            if matches!(row.try_get(1), Ok("lease")) {
                return Err(fault::no_lease(OPERATION));
            }
            let nth = usize::try_from(row.try_get::<_, i32>(0).unwrap_or(0) - 1);
            let slot =
                nth.ok().and_then(|nth| tails.get_mut(nth)).ok_or_else(|| fault::unreadable(OPERATION))?;
            *slot = if matches!(row.try_get(1), Ok("ok")) { tail(row, 3) } else { None };
        }
        Ok(tails)
    }

    pub(super) async fn release(&self, releases: &[Release]) -> Result<()> {
        let ids: Vec<_> = releases.iter().map(|release| release.session.as_str()).collect();
        let owners: Vec<_> = releases.iter().map(|release| release.owner_epoch as i64).collect();
        let mut columns = Columns::default();
        releases.iter().for_each(|release| columns.push(release.delivered));
        let (age, relaxed) = (millis(self.options.retention.age_ms), self.address.relaxed);
        let mut parameters: Vec<Parameter<'_>> = vec![(&ids, Type::TEXT_ARRAY), (&owners, Type::INT8_ARRAY)];
        parameters.extend(columns.parameters());
        parameters.extend([(&age as _, Type::INT8), (&relaxed as _, Type::BOOL)]);
        self.ask(&self.writes, "streams.release", &self.statements.release, &parameters).await.map(drop)
    }

    pub(super) async fn held(&self, node: &NodeId, session: &SessionId) -> Result<Option<Release>> {
        const OPERATION: &str = "streams.held";
        let (node, id) = (super::uuid(node), session.as_str());
        let parameters: [Parameter<'_>; 2] = [(&node, Type::TEXT), (&id, Type::TEXT)];
        let rows = self.ask(&self.reads, OPERATION, &self.statements.held, &parameters).await?;
        let read = |row: &Row| {
            let owner_epoch: i64 = row.try_get(0).ok()?;
            let delivered = Positions {
                session: wire::position(row.try_get(1).ok()?, row.try_get(2).ok()?),
                broadcast: wire::position(row.try_get(3).ok()?, row.try_get(4).ok()?),
            };
            Some(Release { session: session.clone(), owner_epoch: owner_epoch as u64, delivered })
        };
        rows.first().map(|row| read(row).ok_or_else(|| fault::unreadable(OPERATION))).transpose()
    }

    /// `None` when it is read for a holder, by its owner epoch, that is none any more.
    pub(super) async fn read(
        &self,
        session: &SessionId,
        after: Positions,
        holder: Option<(&NodeId, u64)>,
    ) -> Result<Option<Tail>> {
        let node = holder.map(|(node, _)| super::uuid(node));
        let (id, limits) = (session.as_str(), self.limits());
        let at = [
            wire::signed(after.session.epoch),
            wire::offset(after.session.offset),
            wire::signed(after.broadcast.epoch),
            wire::offset(after.broadcast.offset),
        ];
        let mut parameters: Vec<Parameter<'_>> = vec![(&id, Type::TEXT)];
        let numbers = at.iter().chain(&limits).map(|n| (n as &(dyn ToSql + Sync), Type::INT8));
        parameters.extend(numbers);
        parameters.push((&node, Type::TEXT));
        let rows = self.ask(&self.reads, READ, &self.statements.read, &parameters).await?;
        let Some(row) = rows.first() else {
            return Ok(Some(Tail { start: after, gap: true, ..Tail::default() }));
        };
        let tail = tail(row, 0).ok_or_else(|| fault::unreadable(READ))?;
        let owner: Option<i64> = row.try_get(8).map_err(|_| fault::unreadable(READ))?;
        let is_its = holder.is_none_or(|(_, epoch)| owner == Some(epoch as i64));
        Ok((is_its || tail.gap).then_some(tail))
    }

    pub(super) async fn read_topic(&self, topic: Topic, after: Position) -> Result<TopicTail> {
        let name = wire::topic_name(topic);
        let [.., events, bytes, age] = self.limits();
        let numbers = [wire::signed(after.epoch), wire::offset(after.offset), events, bytes, age];
        let mut parameters: Vec<Parameter<'_>> = vec![(&name, Type::TEXT)];
        parameters.extend(numbers.iter().map(|n| (n as &(dyn ToSql + Sync), Type::INT8)));
        let rows = self.ask(&self.reads, READ, &self.statements.read_topic, &parameters).await?;
        let read = |row: &Row| {
            let start = wire::position(row.try_get(0).ok()?, row.try_get(1).ok()?);
            Some(TopicTail { start, gap: row.try_get(2).ok()?, entries: entries(row, 3, start)? })
        };
        rows.first().and_then(read).ok_or_else(|| fault::unreadable(READ))
    }

    pub(super) async fn holders(&self, sessions: Vec<SessionId>) -> Vec<Result<Option<NodeId>>> {
        const OPERATION: &str = "streams.has";
        let ids: Vec<_> = sessions.iter().map(SessionId::as_str).collect();
        let parameters: [Parameter<'_>; 1] = [(&ids, Type::TEXT_ARRAY)];
        let read = |row: &Row| match row.try_get::<_, Option<&str>>(0) {
            Ok(None) => Ok(None),
            Ok(Some(uuid)) => node(uuid).map(Some).ok_or_else(|| fault::unreadable(OPERATION)),
            Err(_) => Err(fault::unreadable(OPERATION)),
        };
        match self.ask(&self.reads, OPERATION, &self.statements.holder, &parameters).await {
            Ok(rows) => rows.iter().map(read).collect(),
            Err(error) => sessions.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }
}
