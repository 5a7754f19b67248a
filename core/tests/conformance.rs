//! Runs the scenarios of `tests/conformance` against the backend of `MCP_SESSIONS_TEST_URL`. For
//! `redis://`, `redis+cluster://`, `postgresql://` or `cloudflare://` without a host it starts servers of
//! its own.
//!
//! Each scenario is a test of its own, named `file::scenario`; what they are is told in
//! `tests/conformance/README.md`.

#[path = "conformance/backend.rs"]
mod backend;
#[path = "conformance/check.rs"]
mod check;
#[path = "conformance/events.rs"]
mod events;
#[path = "conformance/held.rs"]
mod held;
#[path = "support/postgres_server.rs"]
mod postgres_server;
#[path = "../../tests/chaos/src/proxy.rs"]
#[allow(dead_code)]
mod proxy;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "conformance/registry.rs"]
mod registry;
#[path = "conformance/scenario.rs"]
mod scenario;
#[path = "conformance/self_test.rs"]
mod self_test;
#[cfg(feature = "cloudflare")]
#[path = "support/workerd.rs"]
mod workerd;
#[path = "conformance/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::Value;
use tokio::runtime::Runtime;

use backend::{Backend, Server};
use scenario::Scenario;

const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/conformance");
const SCHEMA: &str = "scenario.schema.json";
/// Proved by at least one scenario each.
const GUARANTEES: [&str; 12] = ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10", "G11", "G12"];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let server = match backend::server_from_env() {
        Ok(server) => server,
        Err(problem) => {
            eprintln!("conformance: {problem}");
            return ExitCode::FAILURE;
        }
    };
    match trials(server.as_ref()) {
        Ok(trials) => libtest_mimic::run(&arguments, trials).exit_code(),
        Err(problem) => {
            eprintln!("conformance: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn trials(server: Option<&Server>) -> Result<Vec<Trial>, String> {
    let runtime = Arc::new(Runtime::new().map_err(|error| error.to_string())?);
    let backend = runtime.block_on(Backend::from_env(server))?;
    let mut trials = Vec::new();
    let mut cited = BTreeSet::new();
    for (file, scenarios) in files()? {
        for value in scenarios {
            let title = value["name"].as_str().unwrap_or("without-a-name").to_owned();
            let name = format!("{file}::{title}");
            let scenario = Scenario::parse(value);
            cited.extend(scenario.iter().flat_map(|scenario| scenario.guarantees.clone()));
            trials.push(trial(name, scenario, &backend, &runtime)?);
        }
    }
    if trials.is_empty() {
        return Err(format!("there is no scenario in {SCENARIOS}"));
    }
    let names: BTreeSet<_> = trials.iter().map(|trial| trial.name().to_owned()).collect();
    if names.len() < trials.len() {
        return Err("two scenarios of one file have the same name".into());
    }
    trials.push(Trial::test("runner::every-guarantee-is-proved", move || {
        let missing: Vec<_> = GUARANTEES.iter().filter(|guarantee| !cited.contains(**guarantee)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no scenario cites {missing:?}").into()) }
    }));
    trials.extend(self_tests(&backend, &runtime));
    Ok(trials)
}

/// The scenario files, in order of their names.
fn files() -> Result<Vec<(String, Vec<Value>)>, String> {
    let mut paths = Vec::new();
    for folder in [SCENARIOS.to_owned(), format!("{SCENARIOS}/sessions")] {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{folder}: {error}"))?;
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_scenarios(path)));
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(&path).map_err(|error| fail(&error))?;
            let scenarios = serde_json::from_str(&text).map_err(|error| fail(&error))?;
            Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), scenarios))
        })
        .collect()
}

fn is_scenarios(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json") && !path.ends_with(SCHEMA)
}

fn trial(
    name: String,
    scenario: Result<Scenario, String>,
    backend: &Backend,
    runtime: &Arc<Runtime>,
) -> Result<Trial, String> {
    let scenario = match scenario {
        Ok(scenario) => scenario,
        Err(problem) => return Ok(Trial::test(name, move || Err(problem.into()))),
    };
    let mut able = true;
    for capability in &scenario.requires {
        able &= backend
            .capability
            .has(capability)
            .ok_or_else(|| format!("{name}: {capability} is no capability"))?;
    }
    let place = backend.place(&format!("{}-{}", name.split("::").next().unwrap_or_default(), scenario.name));
    able &= scenario.cut_off().is_empty() || place.can_be_cut_off();
    let runtime = runtime.clone();
    let run = move || runtime.block_on(world::run(scenario, place)).map_err(Failed::from);
    Ok(Trial::test(name, run).with_ignored_flag(!able))
}

/// Every wrong scenario fails, and for its own reason.
fn self_tests(backend: &Backend, runtime: &Arc<Runtime>) -> Vec<Trial> {
    let refused = self_test::malformed().into_iter().map(|wrong| {
        Trial::test(format!("runner::refuses-{}", wrong.name), move || {
            failed_because(Scenario::parse(wrong.scenario).map(|_| ()), wrong.says)
        })
    });
    let failed = self_test::mistaken().into_iter().map(|wrong| {
        let place = backend.place(&format!("runner-{}", wrong.name));
        let runtime = runtime.clone();
        Trial::test(format!("runner::fails-on-{}", wrong.name), move || {
            let scenario = Scenario::parse(wrong.scenario)?;
            failed_because(runtime.block_on(world::run(scenario, place)), wrong.says)
        })
    });
    refused.chain(failed).collect()
}

fn failed_because(outcome: Result<(), String>, says: &str) -> Result<(), Failed> {
    match outcome {
        Ok(()) => Err("it passed".into()),
        Err(problem) if problem.contains(says) => Ok(()),
        Err(problem) => Err(format!("failed for another reason: {problem}, not {says:?}").into()),
    }
}
