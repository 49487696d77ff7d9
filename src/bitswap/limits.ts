/** Bounds on what a peer may send, and on what it may make us keep. Sizes are bytes. */
import { MAX_DIGEST_BYTES } from '../core/limits.js'

/** One message, as libp2p's other implementations bound it. */
export const MAX_MESSAGE_BYTES = 4 * 1024 * 1024
/** Wants, presences and blocks of one message together; Kubo's longest want list has some 40,000. */
export const MAX_ITEMS_PER_MESSAGE = 65_536
/** A CID: four varints and a digest. */
export const MAX_CID_BYTES = 40 + MAX_DIGEST_BYTES
/** A CID without its digest: four varints. */
export const MAX_PREFIX_BYTES = 40
/** A message may take this long from its first byte to its last: 4 MiB at 64 KiB/s, and some. */
export const MESSAGE_TIMEOUT_MS = 90_000
/** Streams of one peer that we listen to at a time. Kubo answers on eight, each for one message, and asks on one. */
export const MAX_STREAMS_PER_PEER = 32
/** Blocks that have come in part, of all peers together. */
export const MAX_PARTIAL_BYTES = 64 * 1024 * 1024
