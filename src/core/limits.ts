/** Bounds on what hostile or broken data may make us do. All sizes are bytes. */

/** Largest block accepted from anywhere (the limit of bitswap and of trustless gateways). */
export const MAX_BLOCK_BYTES = 2 * 1024 * 1024
/** Largest digest of an identity multihash. */
export const MAX_IDENTITY_BYTES = 128
/** Digests of other hash functions. */
export const MIN_DIGEST_BYTES = 20
export const MAX_DIGEST_BYTES = 128
/** Widest HAMT node. */
export const MAX_HAMT_FANOUT = 1024
/** Deepest DAG that is followed. */
export const MAX_DAG_DEPTH = 1024
/** Longest name a POSIX directory can hold. */
export const MAX_NAME_BYTES = 255
