/** What an option of `cidfs mount` is, and how a value of it is refused. */

/** Says what a value must be; the caller adds where it was written. `hidden`: repeating it would not help. */
export class BadValue extends Error {
  constructor(
    message: string,
    readonly hidden = false,
  ) {
    super(message)
  }
}

export interface Option {
  /** Long option without dashes, and key of the TOML file. */
  name: string
  /** Placeholder of its argument; absent: a switch. */
  argument?: string
  /** May be given more than once; an array in the file. */
  repeatable?: boolean
  /** Not allowed in the file. */
  commandLineOnly?: boolean
  help: string
  /** One value of it, checked. @throws BadValue */
  read(value: unknown): string | number | boolean
}

/** An http or https URL without query, fragment and closing slashes. @throws BadValue */
export function readHttpUrl(value: unknown): string {
  const url = typeof value === 'string' && URL.canParse(value) ? new URL(value) : undefined
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new BadValue('must be an http:// or https:// URL')
  }
  if (url.search !== '' || url.hash !== '') throw new BadValue('must be a URL without "?" and "#"')
  return url.href.replace(/\/+$/, '')
}
