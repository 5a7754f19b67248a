//! Somebody else's session on a Postgres server: it locks, listens, and takes up room.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use crate::postgres_server::as_user;

/// A `psql`; what it has open ends with it.
pub struct Console {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Console {
    /// Fails when the server has no room for another one.
    pub fn open(port: u16) -> Result<Self, String> {
        let mut psql = as_user("psql");
        psql.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-XAtq"]);
        let psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = psql.spawn().map_err(|error| format!("psql: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().ok_or("psql has no output")?);
        let mut console = Console { child, input, output: BufReader::new(output) };
        console.say("select 1")?;
        Ok(console)
    }

    /// Says a statement, and waits for its end. Returns the first line of its answer.
    pub fn say(&mut self, statement: &str) -> Result<String, String> {
        const END: &str = "that was all";
        let gone = || format!("psql is gone: {statement}");
        let input = self.input.as_mut().ok_or_else(gone)?;
        writeln!(input, "{statement};\n\\echo {END}").map_err(|_| gone())?;
        let mut first = None;
        loop {
            let mut line = String::new();
            if !matches!(self.output.read_line(&mut line), Ok(1..)) {
                return Err(gone());
            }
            match line.trim_end() {
                END => return Ok(first.unwrap_or_default()),
                line => first.get_or_insert_with(|| line.to_owned()),
            };
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // It reads to the end, and leaves.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
