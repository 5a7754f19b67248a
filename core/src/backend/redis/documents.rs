//! The documents of a session's info, as they are stored: by this library, or by tmcp's own managers.

use redis::{Cmd, Value};

use super::accept::server_error;
use super::corrupt::About;
use super::{RedisBackend, fault, scripts, wire};
use crate::error::Result;
use crate::info::{Json, SessionInfo};
use crate::runtime::random_epoch;
use crate::session::SessionId;

/// What the keys are called, in the order in which they are read.
pub(super) const DOCUMENTS: [&str; 5] =
    ["client_info", "client_capabilities", "log_level", "protocol_version", "initialize_params"];

/// Reads all five; fails with the name of one that makes no sense.
pub(super) fn read_info(documents: &[Value]) -> std::result::Result<SessionInfo, &'static str> {
    let text = |at: usize| match documents.get(at) {
        None | Some(Value::Nil) => Ok(None),
        Some(value) => wire::string(value).map(Some).ok_or(DOCUMENTS[at]),
    };
    let json = |at: usize| text(at)?.map(Json::parse).transpose().map_err(|_| DOCUMENTS[at]);
    Ok(SessionInfo {
        client_info: json(0)?,
        client_capabilities: json(1)?,
        // tmcp's own manager writes the level as JSON.
        log_level: text(2)?
            .map(|level| level.trim_matches('"').parse())
            .transpose()
            .map_err(|_| DOCUMENTS[2])?,
        protocol_version: text(3)?.map(ToOwned::to_owned),
        initialize_params: json(4)?,
    })
}

impl RedisBackend {
    /// Sets some documents by commands of their own, in one round trip with the script that makes the
    /// session known: the server does not tell this node of them then.
    pub(super) async fn put_documents(
        &self,
        session: &SessionId,
        documents: &[Option<&str>; DOCUMENTS.len()],
    ) -> Result<()> {
        const OPERATION: &str = "info.put";
        let ttl = self.session_ttl();
        let keys = self.keys(session);
        let script = |mut cmd: Cmd| {
            cmd.arg(keys.len()).arg(&keys[..]).arg(self.prefix()).arg(session.as_str());
            cmd.arg(&ttl).arg(&wire::epoch(random_epoch())[..]);
            // It would be told before the documents are there.
            cmd.arg(format!("{}nobody", self.prefix())).arg(self.me());
            cmd
        };
        let mut commands = vec![script(scripts::PUT_INFO.by_hash())];
        for (name, document) in DOCUMENTS.iter().zip(documents) {
            let Some(document) = document else { continue };
            let mut set = redis::cmd("SET");
            set.arg(format!("{}{name}:{session}", self.prefix())).arg(document).arg("PX").arg(&ttl);
            commands.push(set);
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.untracked());
        publish.arg([b"I", self.me().as_bytes(), session.as_str().as_bytes()].concat());
        commands.push(publish);
        let answers = self.pipelined(OPERATION, commands).await?;
        let mut refused = answers.iter().filter_map(server_error).find(|error| !fault::is_no_script(error));
        let mut said = answers.first().and_then(wire::number);
        let again;
        if refused.is_none() && answers.iter().any(|answer| server_error(answer).is_some()) {
            again = self.send(OPERATION, script(scripts::PUT_INFO.by_text())).await?;
            refused = again.as_ref().err();
            said = again.as_ref().ok().and_then(wire::number);
        }
        if said == Some(-1) {
            // A closed session has none; its tombstone must not be given any.
            let mut delete = redis::cmd("DEL");
            delete.arg(&DOCUMENTS.map(|name| format!("{}{name}:{session}", self.prefix()))[..]);
            let _ = self.send(OPERATION, delete).await?;
            return Err(fault::session_closed(OPERATION, session));
        }
        let result = refused.map_or(Ok(()), |error| Err(fault::refused(OPERATION, error)));
        // What one command refused another may have done.
        self.explained(result, About::Session(session)).await.map_err(|error| error.with_unknown_outcome())
    }
}
