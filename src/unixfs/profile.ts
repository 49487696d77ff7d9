/**
 * The import profile `unixfs-v1-2025`: parameters that make the same content the same CID in every tool.
 *
 * Specification: IPIP-499, https://specs.ipfs.tech/ipips/ipip-0499/
 */

/** Bytes of content in one leaf. */
export const CHUNK_BYTES = 1024 * 1024
/** Children of one node of a file. */
export const MAX_LINKS = 1024
/** Slots of one shard of a directory. */
export const HAMT_FANOUT = 256
/** A directory whose block would be larger than this is sharded; one of exactly this size is not. */
export const HAMT_THRESHOLD_BYTES = 256 * 1024
