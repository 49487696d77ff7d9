/**
 * The links of a dag-pb node, as bytes of CIDs, for guessing what will be wanted next.
 *
 * Invariant: never throws; reading ends at the first byte that does not fit. What it returns is a hint: nodes are
 * decoded in earnest elsewhere.
 *
 * Specification: https://ipld.io/specs/codecs/dag-pb/spec/
 */
const LINK = 0x12
const HASH = 0x0a

/** Views into `node`, in order. */
export function linksOf(node: Uint8Array): Uint8Array[] {
  const links: Uint8Array[] = []
  for (let at = 0; at < node.length; ) {
    const field = lengthDelimited(node, at)
    if (field === undefined) break
    const hash = node[at] === LINK ? lengthDelimited(node, field.start) : undefined
    if (hash !== undefined && node[field.start] === HASH && hash.end <= field.end) {
      links.push(node.subarray(hash.start, hash.end))
    }
    at = field.end
  }
  return links
}

/** Where the content of the length-delimited field whose tag is at `at` lies; undefined when there is none. */
function lengthDelimited(bytes: Uint8Array, at: number): { start: number; end: number } | undefined {
  if (((bytes[at] ?? 0) & 0x87) !== 2) return undefined // one byte of tag, wire type 2
  let length = 0
  let scale = 1
  for (let start = at + 1; start < at + 6; scale *= 128) {
    const byte = bytes[start++]
    if (byte === undefined) return undefined
    length += (byte & 0x7f) * scale
    if (byte < 0x80) return start + length <= bytes.length ? { start, end: start + length } : undefined
  }
  return undefined
}
