//! One crossing for a batch in both directions: operations in, deliveries out.

use mcp_sessions::{
    Conflict, Cursor, Event, InfoPatch, Json, MailItem, OpenOptions, Outgoing, Payload, SendOptions,
    SessionId, Target, is_frame,
};

use crate::failure::Failure;
use crate::port::{ByNumber, Early, Held, Note, Port, Reply, Work};
use crate::signals::Changed;
use crate::wire::{self, Output, Words, flag, op, record};

/// Items taken out of the mailbox at a time; their payloads are shared, not copied.
const DRAIN: usize = 1_024;

/// The last payload of a batch: one that goes to many crosses, and is stored, once.
#[derive(Default)]
struct LastPayload(Option<((u32, u32), Payload)>);

impl LastPayload {
    fn get(&mut self, inbox: &[u8], offset: u32, length: u32) -> Result<Payload, Failure> {
        match &self.0 {
            Some((place, payload)) if *place == (offset, length) => Ok(payload.clone()),
            _ => {
                let payload = Payload::from(text(inbox, offset, length)?);
                self.0 = Some(((offset, length), payload.clone()));
                Ok(payload)
            }
        }
    }
}

/// Text of the inbox.
fn text(inbox: &[u8], offset: u32, length: u32) -> Result<&str, Failure> {
    let (from, length) = (offset as usize, length as usize);
    let bytes = inbox.get(from..from + length).ok_or_else(broken)?;
    std::str::from_utf8(bytes).map_err(|_| Failure::invalid("exchange", "the text is not UTF-8"))
}

fn broken() -> Failure {
    Failure::invalid("exchange", "the batch is cut short")
}

/// Runs operations from word `from` to word `to`; stops early when a stream's queue is half full.
/// Returns how far it got, and whether it stopped.
pub(crate) fn run(port: &mut Port, from: u32, to: u32) -> (u32, bool) {
    let Some(boxes) = port.boxes.take() else { return (to, false) };
    let mut words = Words::new(&boxes.ops, from, to);
    let mut last = LastPayload::default();
    let mut pressed = false;
    // Elsewhere nothing is delivered while operations run.
    let immediate = port.node.as_ref().is_none_or(|node| node.capability().immediate);
    while !pressed {
        let Some(code) = words.next() else { break };
        if let Err(failure) = operate(port, code, &mut words, &boxes.inbox, &mut last) {
            port.notes.push_back(Note::Lost { failure });
        }
        pressed = immediate && port.mailbox.is_pressed();
    }
    port.end_group();
    let done = words.position();
    port.boxes = Some(boxes);
    (done, pressed)
}

fn operate(
    port: &mut Port,
    code: u32,
    words: &mut Words<'_>,
    inbox: &[u8],
    last: &mut LastPayload,
) -> Result<(), Failure> {
    if !matches!(code, op::SEND_ONE | op::SEND_LIST | op::SEND_ALL | op::SEND_CALL | op::NOTIFY) {
        port.end_batch();
    }
    match code {
        op::SEND_ONE => {
            let [offset, length] = words.take().ok_or_else(broken)?;
            let target = Target::Session(session(port, words, inbox)?);
            let payload = last.get(inbox, offset, length)?;
            send(port, None, target, payload, None)
        }
        op::SEND_ALL => {
            let [offset, length] = words.take().ok_or_else(broken)?;
            let payload = last.get(inbox, offset, length)?;
            send(port, None, Target::All, payload, None)
        }
        op::SEND_LIST => {
            let [offset, length, count] = words.take().ok_or_else(broken)?;
            let target = Target::Sessions(sessions(port, words, inbox, count)?);
            let payload = last.get(inbox, offset, length)?;
            send(port, None, target, payload, None)
        }
        op::SEND_CALL => send_call(port, words, inbox, last),
        op::OPEN => open(port, words, inbox),
        op::RELEASE => {
            let token = words.next().ok_or_else(broken)?;
            if let Some(stream) = port.release(token) {
                stream.close_now();
            }
            Ok(())
        }
        op::GROUP => {
            let call = words.next().ok_or_else(broken)?;
            port.start_group(call);
            Ok(())
        }
        op::PAUSE => {
            let [token, paused] = words.take().ok_or_else(broken)?;
            if let Some(held) = port.streams.get(&token) {
                held.stream.set_paused(paused != 0);
            } else if let Some(served) = port.subscriptions.get(&token) {
                served.subscription.set_paused(paused != 0);
            }
            Ok(())
        }
        op::ACKNOWLEDGE => {
            let token = words.next().ok_or_else(broken)?;
            if let Some(served) = port.subscriptions.get(&token) {
                served.subscription.acknowledge();
            }
            Ok(())
        }
        op::NOTIFY => {
            let [call, offset, length] = words.take().ok_or_else(broken)?;
            notify(port, call, text(inbox, offset, length)?)
        }
        op::INFO_PUT => info_put(port, words, inbox),
        op::INFO_DELETE => {
            let call = words.next().ok_or_else(broken)?;
            let id = session(port, words, inbox);
            let work = id.and_then(|id| info_delete(port, id));
            port.start_maybe_awaited(call, work);
            Ok(())
        }
        op::SUBSCRIBE | op::UNSUBSCRIBE => {
            let call = words.next().ok_or_else(broken)?;
            let id = session(port, words, inbox);
            let [offset, length] = words.take().ok_or_else(broken)?;
            let work = id.and_then(|id| {
                let uri = text(inbox, offset, length)?;
                subscribe(port, id, uri.to_owned(), code == op::SUBSCRIBE)
            });
            port.start_maybe_awaited(call, work);
            Ok(())
        }
        _ => Err(Failure::invalid("exchange", format!("{code} is no operation"))),
    }
}

fn info_delete(port: &mut Port, id: SessionId) -> Result<Work, Failure> {
    let node = port.node("info.delete")?.clone();
    node.info_changed(&id, &port.signals);
    Ok(Box::pin(async move {
        node.info().delete(&id).await?;
        Ok(Reply::Json(String::new()))
    }))
}

fn subscribe(port: &mut Port, id: SessionId, uri: String, subscribed: bool) -> Result<Work, Failure> {
    let node = port.node("info.add_subscription")?.clone();
    Ok(Box::pin(async move {
        match subscribed {
            true => node.info().add_subscription(&id, &uri).await?,
            false => node.info().remove_subscription(&id, &uri).await?,
        };
        Ok(Reply::Json(String::new()))
    }))
}

/// Reads a target: a stream's token, or an id in the inbox.
fn session(port: &Port, words: &mut Words<'_>, inbox: &[u8]) -> Result<SessionId, Failure> {
    let word = words.next().ok_or_else(broken)?;
    if word & wire::ID_BIT == 0 {
        let held = port.streams.get(&word);
        return held.map(|held| held.stream.session().clone()).ok_or_else(broken);
    }
    let offset = words.next().ok_or_else(broken)?;
    Ok(SessionId::new(text(inbox, offset, word & !wire::ID_BIT)?)?)
}

fn sessions(port: &Port, words: &mut Words<'_>, inbox: &[u8], count: u32) -> Result<Vec<SessionId>, Failure> {
    // All words of the operation are read, or the next one would start in the middle of it.
    let all: Vec<_> = (0..count).map(|_| session(port, words, inbox)).collect();
    all.into_iter().collect()
}

fn send(
    port: &mut Port,
    call: Option<u32>,
    target: Target,
    payload: Payload,
    key: Option<&str>,
) -> Result<(), Failure> {
    let node = port.node("streams.send")?;
    let options = key.map_or_else(SendOptions::default, |key| SendOptions::default().idempotency_key(key));
    if node.capability().immediate {
        let receipt = node.streams().send_now(target, payload, options)?;
        if let Some(call) = call {
            port.notes.push_back(Note::Receipt { call, receipt });
        }
        return Ok(());
    }
    port.start_send(call, Outgoing { target, payload, options });
    Ok(())
}

fn send_call(
    port: &mut Port,
    words: &mut Words<'_>,
    inbox: &[u8],
    last: &mut LastPayload,
) -> Result<(), Failure> {
    let [call, offset, length, key_offset, key_length, count] = words.take().ok_or_else(broken)?;
    let target = match count {
        wire::ALL => Ok(Target::All),
        count => sessions(port, words, inbox, count).map(Target::Sessions),
    };
    let sent = || {
        let key = match key_length {
            wire::NONE => None,
            length => Some(text(inbox, key_offset, length)?),
        };
        send(port, Some(call), target?, last.get(inbox, offset, length)?, key)
    };
    if let Err(failure) = sent() {
        port.notes.push_back(Note::Failed { call, failure });
    }
    Ok(())
}

fn open(port: &mut Port, words: &mut Words<'_>, inbox: &[u8]) -> Result<(), Failure> {
    let [token, id_offset, id_length, cursor_offset, cursor_length, flags] =
        words.take().ok_or_else(broken)?;
    let mut opened = || {
        let id = SessionId::new(text(inbox, id_offset, id_length)?)?;
        let mut options = OpenOptions::default();
        if flags & wire::open::REJECT != 0 {
            options = options.conflict(Conflict::Reject);
        }
        if cursor_length != wire::NONE {
            options = options.after(text(inbox, cursor_offset, cursor_length)?);
        }
        let node = port.node("streams.open")?.clone();
        if node.capability().immediate {
            let stream = node.streams().open_in_now(&id, options, &port.mailbox, token)?;
            port.opened(token, flags, stream);
            return Ok(());
        }
        let mailbox = port.mailbox.clone();
        let work: Work = Box::pin(async move {
            let stream = node.streams().open_in(&id, options, &mailbox, token).await?;
            Ok(Reply::Mailed { token, flags, stream })
        });
        port.start_unawaited(Some(token), work);
        Ok(())
    };
    if let Err(failure) = opened() {
        port.notes.push_back(Note::OpenFailed { token, failure });
    }
    Ok(())
}

fn notify(port: &mut Port, call: u32, notification: &str) -> Result<(), Failure> {
    let sent = (|| {
        let node = port.node("subscriptions.send")?;
        if node.capability().immediate {
            node.subscriptions().send_now(notification)?;
            port.notes.push_back(Note::Done { call, json: String::new() });
            return Ok(());
        }
        port.start_notify(call, notification);
        Ok(())
    })();
    if let Err(failure) = sent {
        port.notes.push_back(Note::Failed { call, failure });
    }
    Ok(())
}

fn info_put(port: &mut Port, words: &mut Words<'_>, inbox: &[u8]) -> Result<(), Failure> {
    let call = words.next().ok_or_else(broken)?;
    let id = session(port, words, inbox);
    let fields = words.next().ok_or_else(broken)?;
    let mut places = Vec::with_capacity(5);
    for bit in 0..5 {
        if fields & (1 << bit) != 0 {
            let [offset, length] = words.take().ok_or_else(broken)?;
            places.push((1 << bit, offset, length));
        }
    }
    let work = id.and_then(|id| put(port, id, &places, inbox));
    port.start_maybe_awaited(call, work);
    Ok(())
}

fn put(port: &mut Port, id: SessionId, places: &[(u32, u32, u32)], inbox: &[u8]) -> Result<Work, Failure> {
    let mut patch = InfoPatch::default();
    for (field, offset, length) in places {
        set_field(&mut patch, *field, text(inbox, *offset, *length)?)?;
    }
    let node = port.node("info.put")?.clone();
    node.info_changed(&id, &port.signals);
    Ok(Box::pin(async move {
        node.info().put(&id, patch).await?;
        Ok(Reply::Json(String::new()))
    }))
}

pub(crate) fn set_field(patch: &mut InfoPatch, field: u32, value: &str) -> Result<(), Failure> {
    match field {
        wire::field::CLIENT_INFO => patch.client_info = Some(Json::parse(value)?),
        wire::field::CLIENT_CAPABILITIES => patch.client_capabilities = Some(Json::parse(value)?),
        wire::field::LOG_LEVEL => patch.log_level = Some(value.parse()?),
        wire::field::PROTOCOL_VERSION => patch.protocol_version = Some(value.to_owned()),
        _ => patch.initialize_params = Some(Json::parse(value)?),
    }
    Ok(())
}

/// Writes what there is into the port's buffers; returns flags.
pub(crate) fn fill(port: &mut Port, done: u32) -> u32 {
    port.go_on();
    let Some(mut boxes) = port.boxes.take() else { return 0 };
    let mut output = Output::new(&mut boxes.out, &mut boxes.records);
    let complete = write_all(port, &mut output);
    let records = output.finish(done);
    port.boxes = Some(boxes);
    (if complete { 0 } else { flag::MORE }) | (if records { flag::RECORDS } else { 0 })
}

fn write_all(port: &mut Port, output: &mut Output<'_>) -> bool {
    if !write_changed(port, output) || !write_notes(port, output) {
        return false;
    }
    let mut writer = Writer::default();
    if !write_backlog(port, output, &mut writer) {
        return false;
    }
    loop {
        let Port { mailbox, streams, early, backlog, .. } = &mut *port;
        // Written as they come; once there is no room, what else was taken out waits for the next exchange.
        let drained = mailbox.drain(DRAIN, &mut |token, item| {
            let Some(item) = unless_early(early, token, item) else { return };
            if !backlog.is_empty() || !writer.write(streams, token, &item, output) {
                backlog.push_back((token, item));
            }
        });
        if !backlog.is_empty() {
            return false;
        }
        // What arrives from here on rings.
        if drained < DRAIN {
            return true;
        }
    }
}

/// Puts aside what comes for a stream before the news that it is open.
fn unless_early(early: &mut ByNumber<Early>, token: u32, item: MailItem) -> Option<MailItem> {
    if early.is_empty() {
        return Some(item);
    }
    let Some(early) = early.get_mut(&token) else { return Some(item) };
    if !early.released {
        early.items.push(item);
    }
    None
}

/// Writes what waits from an earlier exchange.
fn write_backlog(port: &mut Port, output: &mut Output<'_>, writer: &mut Writer) -> bool {
    while let Some((token, item)) = port.backlog.pop_front() {
        let Some(item) = unless_early(&mut port.early, token, item) else { continue };
        if !writer.write(&port.streams, token, &item, output) {
            port.backlog.push_front((token, item));
            return false;
        }
    }
    true
}

fn write_changed(port: &mut Port, output: &mut Output<'_>) -> bool {
    match port.signals.take_changed() {
        Changed::None => {}
        Changed::Any => output.record(record::INFO_CHANGED, 0, [0; 3]),
        Changed::Some(sessions) => {
            for (index, session) in sessions.iter().enumerate() {
                if !output.fits(session.as_str().len()) {
                    sessions[index..].iter().for_each(|rest| port.signals.changed(Some(rest)));
                    return false;
                }
                let from = output.position();
                output.text(session.as_str());
                output.record(record::INFO_CHANGED, 0, [from, output.position(), 0]);
            }
        }
    }
    true
}

fn write_notes(port: &mut Port, output: &mut Output<'_>) -> bool {
    while let Some(note) = port.notes.pop_front() {
        if let Err(note) = write_note(note, output) {
            port.notes.push_front(note);
            return false;
        }
    }
    true
}

fn write_note(note: Note, output: &mut Output<'_>) -> Result<(), Note> {
    let (kind, id, json) = match &note {
        Note::Opened { token, gap, start } => {
            let start = start.as_ref().map_or("", Cursor::as_str);
            if !output.fits(start.len()) {
                return Err(note);
            }
            let from = output.position();
            output.text(start);
            output.record(record::OPENED, *token, [from, output.position(), u32::from(*gap)]);
            return Ok(());
        }
        Note::Receipt { call, receipt } if output.fits(0) => {
            let counts = [receipt.accepted, receipt.dropped, receipt.duplicates];
            output.record(record::RECEIPT, *call, counts.map(|count| count.min(u64::from(u32::MAX)) as u32));
            return Ok(());
        }
        Note::Readable { token } if output.fits(0) => {
            output.record(record::READABLE, *token, [0; 3]);
            return Ok(());
        }
        Note::Receipt { .. } | Note::Readable { .. } => return Err(note),
        Note::Done { call, json } => (record::DONE, *call, json.clone()),
        Note::Failed { call, failure } => (record::FAILED, *call, failure.json()),
        Note::OpenFailed { token, failure } => (record::OPEN_FAILED, *token, failure.json()),
        Note::Lost { failure } => (record::LOST, 0, failure.json()),
    };
    if !output.fits(json.len()) {
        ask_for_room(output, json.len());
        return Err(note);
    }
    let from = output.position();
    output.text(&json);
    output.record(kind, id, [from, output.position(), 0]);
    Ok(())
}

/// Tells JavaScript when not even empty buffers have room for the next item.
pub(crate) fn ask_for_room(output: &mut Output<'_>, bytes: usize) {
    if output.too_small_for(bytes) && output.fits(0) {
        output.record(record::GROW, 0, [bytes as u32, 0, 0]);
    }
}

/// Writes events as chunks, those of one stream that follow each other as one.
#[derive(Default)]
struct Writer {
    /// The stream whose chunk was written last.
    chunk: Option<u32>,
    frame: LastFrame,
    notification: LastText,
}

impl Writer {
    /// Writes an item; false when there is no room for it.
    fn write(
        &mut self,
        streams: &ByNumber<Held>,
        token: u32,
        item: &MailItem,
        output: &mut Output<'_>,
    ) -> bool {
        let room = match item {
            MailItem::Event(event) => self.event(streams, token, event, output),
            MailItem::End(reason) => self.end(output, record::END, token, reason.as_str()),
            MailItem::Notification(payload) => {
                self.chunk = None;
                self.notification.write(token, payload, output)
            }
            MailItem::SubscriptionEnd(reason) => {
                self.end(output, record::SUBSCRIPTION_END, token, reason.as_str())
            }
        };
        match room {
            Ok(()) => true,
            Err(bytes) => {
                ask_for_room(output, bytes);
                false
            }
        }
    }

    fn end(&mut self, output: &mut Output<'_>, kind: u32, token: u32, reason: &str) -> Result<(), usize> {
        if !output.fits(0) {
            return Err(0);
        }
        self.chunk = None;
        output.record(kind, token, [wire::reason(reason), 0, 0]);
        Ok(())
    }

    /// Writes an event, or says how much room it needs.
    fn event(
        &mut self,
        streams: &ByNumber<Held>,
        token: u32,
        event: &Event,
        output: &mut Output<'_>,
    ) -> Result<(), usize> {
        // A stream that was released since needs nothing any more.
        let Some(held) = streams.get(&token) else { return Ok(()) };
        let payload = event.payload();
        let cursor = (held.frame_ids && self.frame.is_frame(payload)).then(|| event.cursor());
        let id = cursor.as_ref().map_or("", Cursor::as_str);
        let bytes = payload.len() + if id.is_empty() { 0 } else { ID_FIELD.len() + id.len() + 1 };
        if !output.fits(bytes) {
            return Err(bytes);
        }
        let from = output.position();
        if !id.is_empty() {
            output.text(ID_FIELD);
            output.text(id);
            output.text("\n");
        }
        output.text(payload);
        if self.chunk == Some(token) {
            output.extend_chunk();
        } else {
            output.record(record::CHUNK, token, [from, output.position(), 0]);
            self.chunk = Some(token);
        }
        Ok(())
    }
}

/// As [`mcp_sessions::frame_prefix`] writes it.
const ID_FIELD: &str = "id: ";

/// Whether the last payload was an SSE frame: a broadcast is looked at once, not once a stream.
#[derive(Default)]
struct LastFrame(Option<(Payload, bool)>);

impl LastFrame {
    fn is_frame(&mut self, payload: &Payload) -> bool {
        match &self.0 {
            Some((last, known)) if last.is_same(payload) => *known,
            _ => {
                let known = is_frame(payload);
                self.0 = Some((payload.clone(), known));
                known
            }
        }
    }
}

/// Where the last notification stands in *out*: one for many subscriptions is there once.
#[derive(Default)]
struct LastText(Option<(Payload, u32, u32)>);

impl LastText {
    fn write(&mut self, token: u32, payload: &Payload, output: &mut Output<'_>) -> Result<(), usize> {
        let place = match &self.0 {
            Some((last, from, to)) if last.is_same(payload) && output.fits(0) => (*from, *to),
            _ => {
                if !output.fits(payload.len()) {
                    return Err(payload.len());
                }
                let from = output.position();
                output.text(payload);
                self.0 = Some((payload.clone(), from, output.position()));
                (from, output.position())
            }
        };
        output.record(record::NOTIFICATION, token, [place.0, place.1, 0]);
        Ok(())
    }
}
