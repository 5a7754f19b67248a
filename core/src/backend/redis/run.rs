//! Which run of a server a connection leads to.
//!
//! Another server that takes over, or the same one when it starts again, may lack the last writes, and
//! gives their positions to other events. So every script is told the run it is executed in, and a log
//! goes on in another epoch when it is looked at in another run (`lua/go_on.lua`): what was lost is a gap
//! (G3), and what was not goes on.

use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, Pipeline, RedisResult, Value};

use super::wire;

/// A number that no other run has; `None` where a server does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run(Option<u64>);

impl Run {
    pub(super) const UNKNOWN: Run = Run(None);

    /// Asks a server.
    pub(super) async fn of(connection: &mut MultiplexedConnection) -> RedisResult<Self> {
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("INFO").arg("server");
        ask.cmd("INFO").arg("replication");
        let answers = connection.send_packed_commands(&ask, 0, 2).await?;
        let text = |value: &Value| match value {
            Value::VerbatimString { text, .. } => Some(text.clone()),
            value => wire::string(value).map(ToOwned::to_owned),
        };
        Ok(Run::read(&answers.iter().filter_map(text).collect::<Vec<_>>().concat()))
    }

    /// A process that is replaced and then takes over again is another run: it has followed another
    /// server in between.
    fn read(info: &str) -> Self {
        let number = |field: &str| {
            let id = info.lines().find_map(|line| line.strip_prefix(field))?;
            u64::from_str_radix(id.get(..16)?, 16).ok()
        };
        let run = number("run_id:");
        Run(run.map(|run| run ^ number("master_replid2:").unwrap_or(0).rotate_left(1)))
    }

    /// Whether a connection that led to this one leads elsewhere now.
    pub(super) fn is_over(self, now: Run) -> bool {
        matches!((self.0, now.0), (Some(then), Some(now)) if then != now)
    }

    /// A script is told the run in its last argument.
    pub(super) fn tell(self, cmd: &mut Cmd) {
        if matches!(cmd.args_iter().next(), Some(Arg::Simple(b"EVALSHA" | b"EVAL"))) {
            match self.0 {
                Some(run) => cmd.arg(&run.to_be_bytes()[..]),
                None => cmd.arg(""),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_a_process_and_what_it_followed() {
        let info = |run: &str, followed: &str| {
            Run::read(&format!("# Server\r\nrun_id:{run}\r\nx:1\r\nmaster_replid2:{followed}\r\n"))
        };
        let (one, other, nothing) = ("1".repeat(40), "2".repeat(40), "0".repeat(40));
        let first = info(&one, &nothing);
        assert!(!first.is_over(info(&one, &nothing)));
        assert!(first.is_over(info(&other, &nothing)));
        assert!(first.is_over(info(&one, &other)));
        assert!(!first.is_over(Run::read("# Server\r\n")), "who does not say is not another");
        assert_eq!(Run::read("run_id:none"), Run::UNKNOWN);
    }

    #[test]
    fn scripts_are_told() {
        let told = |name: &str, run: Run| {
            let mut cmd = redis::cmd(name);
            cmd.arg("x");
            run.tell(&mut cmd);
            cmd.args_iter().count()
        };
        assert_eq!(told("EVALSHA", Run(Some(1))), 3);
        assert_eq!(told("EVAL", Run::UNKNOWN), 3);
        assert_eq!(told("GET", Run(Some(1))), 2);
    }
}
