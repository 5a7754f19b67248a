//! What clients said, and the resources they are subscribed to.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::each::{column, settle};
use super::{Inner, Parameter, count, fault, millis, wire};
use crate::error::{Error, ErrorKind, Result};
use crate::info::{InfoPatch, Json, SessionInfo};
use crate::session::SessionId;

/// One kind of document of several sessions.
type Column = Vec<Option<String>>;

/// The patches of one statement, in columns; each session once.
struct Patches<'a> {
    ids: Vec<&'a str>,
    documents: [Option<Column>; 5],
}

impl<'a> Patches<'a> {
    fn new(patches: &'a [(SessionId, InfoPatch)]) -> Self {
        let mut at: HashMap<&str, usize> = HashMap::new();
        let mut ids = Vec::new();
        let mut merged: Vec<[Option<String>; 5]> = Vec::new();
        for (session, patch) in patches {
            let n = *at.entry(session.as_str()).or_insert_with(|| {
                ids.push(session.as_str());
                merged.push(Default::default());
                ids.len() - 1
            });
            let json = |json: &Option<Json>| json.as_ref().map(|json| json.as_str().to_owned());
            let documents = [
                json(&patch.client_info),
                json(&patch.client_capabilities),
                patch.log_level.map(|level| level.as_str().to_owned()),
                patch.protocol_version.as_deref().map(|version| wire::stored(version).into_owned()),
                json(&patch.initialize_params),
            ];
            for (slot, document) in merged[n].iter_mut().zip(documents) {
                if document.is_some() {
                    *slot = document;
                }
            }
        }
        let column = |kind: usize| -> Option<Column> {
            let any = merged.iter().any(|documents| documents[kind].is_some());
            any.then(|| merged.iter().map(|documents| documents[kind].clone()).collect())
        };
        Patches { documents: [column(0), column(1), column(2), column(3), column(4)], ids }
    }
}

impl Inner {
    pub(super) async fn put_infos(&self, patches: Vec<(SessionId, InfoPatch)>) -> Vec<Result<()>> {
        let merged = Patches::new(&patches);
        let (me, ttl) = (self.me(), millis(self.options.session_ttl_ms));
        let mut parameters: Vec<Parameter<'_>> =
            vec![(&me, Type::TEXT), (&ttl, Type::INT8), (&merged.ids, Type::TEXT_ARRAY)];
        for column in &merged.documents {
            parameters.push((column, Type::TEXT_ARRAY));
        }
        let put = self.ask(&self.writes, "info.put", &self.statements.put_info, &parameters).await;
        match put {
            // One of them was closed; the others are none the worse for it.
            Err(error) if error.kind() == ErrorKind::NotFound && patches.len() > 1 => {
                let mut outcomes = Vec::with_capacity(patches.len());
                for patch in patches {
                    outcomes.extend(Box::pin(self.put_infos(vec![patch])).await);
                }
                outcomes
            }
            Ok(_) => patches.iter().map(|_| Ok(())).collect(),
            Err(error) => patches.iter().map(|_| Err(error.duplicate())).collect(),
        }
    }

    pub(super) async fn infos(&self, sessions: Vec<SessionId>) -> Vec<Result<Option<Arc<SessionInfo>>>> {
        const OPERATION: &str = "info.get";
        let ids: Vec<_> = sessions.iter().map(SessionId::as_str).collect();
        let ttl = millis(self.options.session_ttl_ms);
        let parameters: [Parameter<'_>; 2] = [(&ids, Type::TEXT_ARRAY), (&ttl, Type::INT8)];
        let rows = match self.ask(&self.reads, OPERATION, &self.statements.info, &parameters).await {
            Ok(rows) => rows,
            Err(error) => return sessions.iter().map(|_| Err(error.duplicate())).collect(),
        };
        let mut infos: Vec<_> = sessions.iter().map(|_| Err(fault::unreadable(OPERATION))).collect();
        for row in &rows {
            let nth = usize::try_from(row.try_get::<_, i32>(0).unwrap_or(0) - 1);
            let Some((at, session)) = nth.ok().and_then(|nth| Some((nth, sessions.get(nth)?))) else {
                continue;
            };
            infos[at] = read_info(row).map(|info| info.map(Arc::new)).ok_or_else(|| {
                let message = format!("the stored info of session {session} can't be read");
                Error::new(ErrorKind::Corrupt, OPERATION, message)
            });
        }
        infos
    }

    pub(super) async fn forget_infos(&self, sessions: Vec<SessionId>) -> Vec<Result<bool>> {
        const OPERATION: &str = "info.delete";
        let order: Vec<_> = (0..sessions.len()).collect();
        let ids = column(&sessions, &order, SessionId::as_str);
        let parameters: [Parameter<'_>; 2] = [(&self.me(), Type::TEXT), (&ids, Type::TEXT_ARRAY)];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.forget_info, &parameters).await;
        settle(OPERATION, &order, rows, |_, row| row.try_get(1).ok(), || Err(fault::unreadable(OPERATION)))
    }

    pub(super) async fn subscribe(&self, session: &SessionId, uri: &str, max: usize) -> Result<bool> {
        const OPERATION: &str = "info.add_subscription";
        let (id, uri) = (session.as_str(), wire::stored(uri));
        let (ttl, most) = (millis(self.options.session_ttl_ms), count(max));
        let parameters: [Parameter<'_>; 4] =
            [(&id, Type::TEXT), (&uri, Type::TEXT), (&ttl, Type::INT8), (&most, Type::INT8)];
        let rows = self.ask(&self.writes, OPERATION, &self.statements.subscribe, &parameters).await?;
        match rows.first().and_then(|row| row.try_get::<_, i32>(0).ok()) {
            Some(0) => Ok(false),
            Some(1) => Ok(true),
            Some(_) => Err(Error::new(
                ErrorKind::TooLarge,
                OPERATION,
                format!("session {session} has {max} resource subscriptions, which is the limit"),
            )),
            None => Err(fault::unreadable(OPERATION)),
        }
    }

    pub(super) async fn subscribers(&self, uri: &str) -> Result<Vec<SessionId>> {
        let uri = wire::stored(uri);
        let parameters: [Parameter<'_>; 1] = [(&uri, Type::TEXT)];
        let statement = &self.statements.subscribers;
        let rows = self.ask(&self.reads, "info.subscribers", statement, &parameters).await?;
        // Another program's rows may hold no session ids of ours.
        let ids = rows.iter().filter_map(|row| row.try_get::<_, &str>(0).ok());
        Ok(ids.filter_map(|id| SessionId::new(id).ok()).collect())
    }

    pub(super) async fn subscriptions(&self, session: &SessionId) -> Result<Vec<String>> {
        let id = session.as_str();
        let parameters: [Parameter<'_>; 1] = [(&id, Type::TEXT)];
        let rows = self.ask(&self.reads, "info.subscriptions", &self.statements.uris, &parameters).await?;
        let uris = rows.iter().filter_map(|row| row.try_get::<_, &str>(0).ok());
        let mut uris: Vec<_> = uris.map(|uri| wire::restored(uri).into_owned()).collect();
        uris.sort_unstable();
        Ok(uris)
    }
}

/// The five documents, as they are stored.
fn read_info(row: &Row) -> Option<Option<SessionInfo>> {
    if !row.try_get::<_, bool>(1).ok()? {
        return Some(None);
    }
    let text = |at: usize| row.try_get::<_, Option<&str>>(at).ok();
    let json = |at: usize| text(at)?.map(Json::parse).transpose().ok();
    Some(Some(SessionInfo {
        client_info: json(2)?,
        client_capabilities: json(3)?,
        // tmcp's own manager writes the level as JSON.
        log_level: text(4)?.map(|level| level.trim_matches('"').parse()).transpose().ok()?,
        protocol_version: text(5)?.map(|version| wire::restored(version).into_owned()),
        initialize_params: json(6)?,
    }))
}
