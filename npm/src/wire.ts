// The packed layouts of a crossing; `bindings/node/src/wire.rs` is the other half and says more.

/** The version of the layouts: an addon with another one is refused. */
export const WIRE_VERSION = 2

/** Operations: the first word of each. */
export const Op = {
  sendOne: 1,
  sendList: 2,
  sendAll: 3,
  sendCall: 4,
  open: 5,
  release: 6,
  pause: 7,
  infoPut: 8,
  infoDelete: 9,
  subscribe: 10,
  unsubscribe: 11,
  notify: 12,
  acknowledge: 13,
  group: 14,
} as const

/** A target is a stream's token, or this bit with the length of an id, and the id's offset. */
export const ID_BIT = 0x8000_0000
/** In place of a count: all sessions. In place of a length: absent. */
export const ALL = 0xffff_ffff
export const NONE = 0xffff_ffff

/** Flags of `Op.open`. */
export const OPEN_REJECT = 1
export const OPEN_FRAME_IDS = 2
export const OPEN_TELL_START = 4

/** The fields of `Op.infoPut`, each bit in this order. */
export const INFO_FIELDS = [
  'clientInfo',
  'clientCapabilities',
  'logLevel',
  'protocolVersion',
  'initializeParams',
] as const

/** Records: `kind, id, a, b, c`. */
export const RECORD_WORDS = 5
export const Rec = {
  chunk: 1,
  end: 2,
  opened: 3,
  openFailed: 4,
  receipt: 5,
  done: 6,
  failed: 7,
  readable: 8,
  notification: 9,
  subscriptionEnd: 10,
  infoChanged: 11,
  lost: 12,
  grow: 13,
  event: 14,
} as const

/** The first words of the records' buffer. */
export const HEAD_RECORDS = 0
export const HEAD_DONE = 1
export const HEAD_OUT = 2
export const HEAD_WORDS = 4

/** What an exchange returns. */
export const FLAG_MORE = 1
export const FLAG_PRESSED = 2
export const FLAG_OTHERS = 4
export const FLAG_RECORDS = 8

/** Why a stream or subscription ended, by number. */
export const REASONS = [
  'closed',
  'replaced',
  'overflow',
  'gap',
  'fenced',
  'terminated',
  'shutdown',
  'cancelled',
] as const
