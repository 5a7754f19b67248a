//! The Node.js addon under the npm package `mcp-sessions`.
//!
//! It moves bytes and numbers; types, promises and error classes are TypeScript's. One JavaScript
//! thread holds one *port* an engine; a crossing hands a batch of operations in and a batch of
//! deliveries out (see [`wire`]). No export waits: what can't be answered at once rings later.

mod batch;
mod calls;
mod desk;
mod exchange;
mod failure;
mod port;
mod sessions;
mod shared;
mod signals;
mod wire;

use mcp_sessions::{Event, EventKind};
use napi::bindgen_prelude::{Buffer, Env, Function, Result};
use napi_derive::napi;

use crate::exchange::ask_for_room;
use crate::failure::Failure;
use crate::port::{Boxes, Next, Port};
use crate::signals::Signals;
use crate::wire::{Output, flag, record};

/// The version of the packed layouts.
#[napi(catch_unwind)]
pub fn wire_version() -> u32 {
    wire::VERSION
}

/// How many ports the process has.
#[napi(catch_unwind)]
pub fn live_ports() -> u32 {
    desk::live()
}

/// Makes a port on these buffers. `wake_up` is called with its handle, from the event loop, when it
/// has something to fetch; it does not keep the process alive.
#[napi(catch_unwind)]
pub fn make_port(
    env: Env,
    wake_up: Function<'_, u32, ()>,
    inbox: Buffer,
    ops: Buffer,
    out: Buffer,
    records: Buffer,
) -> Result<u32> {
    let handle = desk::next_handle();
    let wake_up =
        wake_up.build_threadsafe_function::<u32>().callee_handled::<false>().weak::<true>().build()?;
    let signals = Signals::new(handle, wake_up);
    desk::insert(handle, Port::new(signals, Boxes { inbox, ops, out, records }));
    // A worker that stops gives its streams back.
    desk::once_a_thread(|| env.add_env_cleanup_hook((), |()| desk::clear()).map(drop))?;
    Ok(handle)
}

/// Lets go of a port: its streams are given back, and its engine, if it was the last one on it.
#[napi(catch_unwind)]
pub fn drop_port(port: u32) -> bool {
    desk::remove(port)
}

/// Attaches other buffers, larger or smaller ones.
#[napi(catch_unwind)]
pub fn attach(port: u32, inbox: Buffer, ops: Buffer, out: Buffer, records: Buffer) {
    desk::with(port, |port| port.boxes = Some(Boxes { inbox, ops, out, records }));
}

/// Runs the operations from word `from` to word `to`, or until a queue is half full, then, if asked
/// to, fetches what there is. Returns flags.
#[napi(catch_unwind)]
pub fn exchange(port: u32, from: u32, to: u32, fetch: bool) -> u32 {
    let flags = desk::with(port, |it| {
        let (done, pressed) = match from < to {
            true => exchange::run(it, from, to),
            false => (to, false),
        };
        let pressed = if pressed { flag::PRESSED } else { 0 };
        if !fetch {
            if let Some(boxes) = &mut it.boxes {
                wire::note_done(&mut boxes.records, done);
            }
            return pressed;
        }
        desk::note_fetched(port);
        pressed | exchange::fill(it, done)
    });
    let more = if fetch && desk::is_ready(port) { flag::MORE } else { 0 };
    flags.unwrap_or_default() | more | if desk::any_ready_but(port) { flag::OTHERS } else { 0 }
}

/// Another port of this thread that has something to fetch.
#[napi(catch_unwind)]
pub fn next_ready() -> Option<u32> {
    desk::next_ready()
}

/// Whether info that this port may have cached changed elsewhere.
#[napi(catch_unwind)]
pub fn is_stale(port: u32) -> bool {
    desk::with(port, |port| port.signals.is_stale()).unwrap_or_default()
}

/// Starts a call; its answer if it is there at once, else it is fetched later under this number.
#[napi(catch_unwind)]
pub fn call(port: u32, number: u32, request: String) -> Option<String> {
    let answer = desk::with(port, |port| calls::start(port, number, &request));
    match answer.unwrap_or_else(|| Some(Err(Failure::closed("call")))) {
        Some(Ok(json)) => Some(json),
        // What is no JSON is a failure: it starts with this mark.
        Some(Err(failure)) => Some(format!("!{}", failure.json())),
        None => {
            // Nobody fetches now what this call has brought about.
            desk::ring_ready();
            None
        }
    }
}

/// Takes up to `limit` events of a stream (or notifications of a subscription) that is read by asking.
/// Returns why it ended once there are no more; `pending` when the port will be woken.
#[napi(catch_unwind)]
pub fn take(port: u32, token: u32, limit: u32) -> Option<String> {
    let answer = desk::with(port, |port| {
        let mut boxes = port.boxes.take()?;
        let mut output = Output::new(&mut boxes.out, &mut boxes.records);
        let answer = take_into(port, token, limit, &mut output);
        output.finish(0);
        port.boxes = Some(boxes);
        answer
    });
    desk::ring_ready();
    answer.unwrap_or_else(|| Some("closed".into()))
}

fn take_into(port: &mut Port, token: u32, limit: u32, output: &mut Output<'_>) -> Option<String> {
    for taken in 0..limit.max(1) {
        // Asking when there is nothing has the port woken, so only the first time.
        let next = if taken == 0 { port.next_of(token) } else { port.more_of(token) };
        let room = match next {
            Next::End(reason) => return (taken == 0).then(|| reason.into()),
            Next::Later => return (taken == 0).then(|| "pending".into()),
            Next::Event(event) => write_event(output, &event).inspect_err(|_| {
                port.put_back_event(token, event);
            }),
            Next::Notification(payload) => write_notification(output, token, &payload).inspect_err(|_| {
                port.put_back_notification(token, payload);
            }),
        };
        if let Err(bytes) = room {
            ask_for_room(output, bytes);
            return None;
        }
    }
    None
}

fn write_event(output: &mut Output<'_>, event: &Event) -> std::result::Result<(), usize> {
    let cursor = event.cursor();
    let bytes = event.payload().len() + cursor.as_str().len();
    if !output.fits(bytes) {
        return Err(bytes);
    }
    let from = output.position();
    output.text(event.payload());
    let middle = output.position();
    output.text(cursor.as_str());
    let kind = u32::from(event.kind() == EventKind::Broadcast);
    output.record(record::EVENT, kind, [from, middle, output.position()]);
    Ok(())
}

fn write_notification(output: &mut Output<'_>, token: u32, payload: &str) -> std::result::Result<(), usize> {
    if !output.fits(payload.len()) {
        return Err(payload.len());
    }
    let from = output.position();
    output.text(payload);
    output.record(record::NOTIFICATION, token, [from, output.position(), 0]);
    Ok(())
}

/// Why a stream or subscription ended; if it has not, the port is woken when it does.
#[napi(catch_unwind)]
pub fn end_of(port: u32, token: u32) -> Option<String> {
    desk::with(port, |port| port.end_of(token).map(String::from)).unwrap_or_else(|| Some("closed".into()))
}
