//! `chaos node URL OPTIONS` is a node process; `chaos run` makes trouble and prints the verdict; `chaos
//! soak` and its nodes see whether memory stays flat and nothing is left.

use std::process::ExitCode;

use chaos::{node, run, soak};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["node", url, options] => {
            node::run(url, options).await;
            ExitCode::SUCCESS
        }
        ["run", backend, seconds, seed] => run::from_command_line(backend, seconds, seed).await,
        ["soak", backend, seconds, sessions] => soak::from_command_line(backend, seconds, sessions).await,
        ["soak-node", task] => match soak::node::run(task).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("chaos run BACKEND SECONDS SEED, chaos soak BACKEND SECONDS SESSIONS");
            ExitCode::FAILURE
        }
    }
}
