//! Placeholder until the runner is here.
fn main() {}
