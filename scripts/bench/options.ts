/** The command line of the benchmark. */
import { parseArgs } from 'node:util'
import type { Transport } from '../../test/support/transport.js'

export interface Options {
  /** Rows whose name it matches. */
  only: RegExp
  /** A quarter of the data, each contender once: to see that it runs, not to judge by. */
  quick: boolean
  /** A file for all samples. */
  json: string | undefined
  kubo: boolean
  /** Of cidfs; `both`: a second table puts them beside one another. */
  transport: Transport | 'both'
  /** A floor that is missed is a failure. */
  check: boolean
}

const TRANSPORTS = ['native', 'fuse-native', 'both'] as const

export const USAGE = `npm run bench -- [options]
  --only REGEX   rows whose name matches
  --quick        less data, each contender once
  --json FILE    write all samples to a file
  --kubo no      leave Kubo out
  --transport T  of cidfs: native, fuse-native, or both, side by side
  --check        status 1 when a floor is missed`

/** @throws Error of one line. */
export function readOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      only: { type: 'string', default: '' },
      quick: { type: 'boolean', default: false },
      json: { type: 'string' },
      kubo: { type: 'string', default: 'yes' },
      transport: { type: 'string', default: 'native' },
      check: { type: 'boolean', default: false },
    },
  })
  if (values.kubo !== 'yes' && values.kubo !== 'no') throw new Error('--kubo is yes or no')
  const transport = TRANSPORTS.find(name => name === values.transport)
  if (transport === undefined) throw new Error(`--transport is ${TRANSPORTS.join(', ')}`)
  const { quick, json, check } = values
  return { only: new RegExp(values.only), quick, json, check, transport, kubo: values.kubo === 'yes' }
}
