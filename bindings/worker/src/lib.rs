//! The sync layer in a Durable Object: what JavaScript gives it, and what it gives JavaScript.
//!
//! Sockets, storage and alarms stay on the side of JavaScript, which owns them; what happens to
//! sessions is decided on this side. Every call is synchronous: JavaScript runs it in a transaction
//! of the object's storage, so that a message is done whole or not at all.

use js_sys::Uint8Array;
use mcp_sessions::backend::cloudflare::{Host, SyncLayer as Layer};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const HOST: &str = r#"
/** What the sync layer needs of a Durable Object. */
export interface Host {
  nowMs(): number
  get(key: Uint8Array): Uint8Array | undefined
  put(key: Uint8Array, value: Uint8Array): void
  delete(key: Uint8Array): void
  /** Keys and values in turns, in order of keys, from `from` up to but without `to`. */
  scan(from: Uint8Array, to: Uint8Array, most: number): Uint8Array[]
  /** When the node's open socket was last heard. */
  heardMs(node: string): number | undefined
  send(node: string, message: Uint8Array): void
  /** Puts a line of text on a Worker's socket. */
  say(node: string, text: string): void
  /** Ends a Worker's stream or subscription. */
  end(node: string, reason: string): void
  wakeAt(atMs: number): void
}
"#;

#[wasm_bindgen]
extern "C" {
    /// The Durable Object.
    #[wasm_bindgen(typescript_type = "Host")]
    pub type JsHost;

    #[wasm_bindgen(method, js_name = nowMs)]
    fn now_ms(this: &JsHost) -> f64;
    #[wasm_bindgen(method)]
    fn get(this: &JsHost, key: &[u8]) -> Option<Vec<u8>>;
    #[wasm_bindgen(method)]
    fn put(this: &JsHost, key: &[u8], value: &[u8]);
    #[wasm_bindgen(method)]
    fn delete(this: &JsHost, key: &[u8]);
    #[wasm_bindgen(method)]
    fn scan(this: &JsHost, from: &[u8], to: &[u8], most: f64) -> Vec<Uint8Array>;
    #[wasm_bindgen(method, js_name = heardMs)]
    fn heard_ms(this: &JsHost, node: &str) -> Option<f64>;
    #[wasm_bindgen(method)]
    fn send(this: &JsHost, node: &str, message: &[u8]);
    #[wasm_bindgen(method)]
    fn say(this: &JsHost, node: &str, text: &str);
    #[wasm_bindgen(method)]
    fn end(this: &JsHost, node: &str, reason: &str);
    #[wasm_bindgen(method, js_name = wakeAt)]
    fn wake_at(this: &JsHost, at_ms: f64);
}

impl Host for JsHost {
    fn now_ms(&self) -> u64 {
        self.now_ms() as u64
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) {
        self.put(key, value);
    }

    fn delete(&self, key: &[u8]) {
        self.delete(key);
    }

    fn scan(&self, from: &[u8], to: &[u8], most: usize, each: &mut dyn FnMut(&[u8], &[u8])) {
        let rows = self.scan(from, to, most as f64);
        for pair in rows.chunks_exact(2) {
            each(&pair[0].to_vec(), &pair[1].to_vec());
        }
    }

    fn heard_ms(&self, node: &str) -> Option<u64> {
        self.heard_ms(node).map(|at_ms| at_ms as u64)
    }

    fn send(&self, node: &str, message: &[u8]) {
        self.send(node, message);
    }

    fn say(&self, node: &str, text: &str) {
        self.say(node, text);
    }

    fn end(&self, node: &str, reason: &str) {
        self.end(node, reason);
    }

    fn wake_at(&self, at_ms: u64) {
        self.wake_at(at_ms as f64);
    }
}

/// One shard of a deployment's sessions.
#[wasm_bindgen]
pub struct SyncLayer(Layer<JsHost>);

#[wasm_bindgen]
impl SyncLayer {
    /// The shard that lies in this object's storage.
    #[wasm_bindgen(constructor)]
    pub fn new(host: JsHost) -> SyncLayer {
        SyncLayer(Layer::new(host))
    }

    /// Does what a node asks for and answers on its socket. False when the message is of another
    /// version: the socket is to be closed then.
    pub fn message(&mut self, node: &str, message: &[u8]) -> bool {
        self.0.message(node, message)
    }

    /// Does what a Worker asks for; options, question and answer are JSON.
    pub fn ask(&mut self, options: &str, question: &str) -> String {
        self.0.ask(options, question)
    }

    /// Opens a Worker's stream, whose socket is there; the failure, if it can't be.
    pub fn open(&mut self, node: &str, options: &str, opening: &str) -> Option<String> {
        self.0.open(node, options, opening)
    }

    /// Adds a Worker's subscription, whose socket is there; the failure, if it can't be.
    pub fn listen(&mut self, node: &str, options: &str, listening: &str) -> Option<String> {
        self.0.listen(node, options, listening)
    }

    /// A node's socket was closed, and last heard then.
    pub fn closed(&mut self, node: &str, heard_ms: f64) {
        self.0.closed(node, heard_ms as u64);
    }

    /// Expires what is due, and sets the next alarm.
    pub fn alarm(&mut self) {
        self.0.alarm();
    }
}
