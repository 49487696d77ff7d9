/** The results as a Markdown table. */

import { figureOf, isMet, type Output, type Result, type RowResult, ratioTo } from './row.js'
import { median } from './statistics.js'

const MIB = 2 ** 20
const HEAD = [
  'row',
  'cidfs',
  'raw',
  'Kubo',
  'to raw',
  'to Kubo',
  'goal',
  'met?',
  'CPU s cidfs, Kubo',
  'beside it',
]

export function toMarkdown(results: RowResult[]): string {
  const lines = results.flatMap(result =>
    result.row.outputs.map((output, i) => cells(result, output, i === 0)),
  )
  return aligned(HEAD, lines)
}

function aligned(head: readonly string[], lines: string[][]): string {
  const widths = head.map((title, i) =>
    Math.max(...[title, ...lines.map(line => line[i]!)].map(({ length }) => length)),
  )
  const format = (line: readonly string[]) =>
    `| ${line.map((cell, i) => cell.padEnd(widths[i]!)).join(' | ')} |`
  const rule = `|${widths.map(width => '-'.repeat(width + 2)).join('|')}|`
  return [format(head), rule, ...lines.map(format)].join('\n')
}

/** The two transports beside one another; `fuse-native` times as long, or as slow, as native. */
export function toTransportTable(native: RowResult[], other: RowResult[]): string {
  const lines = native.flatMap((result, i) =>
    result.row.outputs.flatMap(output => {
      const results = [result, other[i]!].map(({ results }) => {
        return results.find(({ name }) => name === (output.ours ?? 'cidfs'))
      })
      const [ours, theirs] = results.map(found => figureOf(found, output.key))
      if (ours === undefined || theirs === undefined) return []
      const ratio = { value: theirs.value / ours.value, least: theirs.least }
      return [[output.title, ...results.map(found => figure(found, output)), times(ratio)]]
    }),
  )
  return aligned(['row', 'native', 'fuse-native', 'native is better by'], lines)
}

function cells(result: RowResult, output: Output, isFirst: boolean): string[] {
  const find = (name: string) => result.results.find(candidate => candidate.name === name)
  const columns = [output.ours ?? 'cidfs', 'raw', output.theirs ?? 'Kubo']
  const met = isMet(result, output)
  return [
    output.title,
    ...columns.map(name => figure(find(name), output)),
    times(ratioTo(result, 'raw', output)),
    times(ratioTo(result, 'Kubo', output)),
    goal(output),
    met === undefined ? (goal(output) === '' ? '' : 'unknown') : met ? 'yes' : 'NO',
    isFirst || output.ours ? cpu([find(columns[0]!), find(columns[2]!)]) : '',
    beside(result, output, isFirst),
  ]
}

function goal(output: Output): string {
  if (output.atMost !== undefined) return `<= ${withUnit(output.atMost, output)}`
  return output.floor === undefined ? '' : `${output.floor} x`
}

function figure(result: Result | undefined, output: Output): string {
  const found = figureOf(result, output.key)
  if (found === undefined) return ''
  return `${found.least ? (output.unit === 'rate' ? '< ' : '> ') : ''}${withUnit(found.value, output)}`
}

function withUnit(value: number, { unit, sizeBytes = 0 }: Output): string {
  if (unit === 'rate') return `${rounded(sizeBytes / MIB / value)} MiB/s`
  if (unit === 'bytes') return `${rounded(value / MIB)} MiB`
  return unit === 'milliseconds' ? `${rounded(value * 1000)} ms` : `${rounded(value)} s`
}

/** Three digits are more than a noisy machine deserves. */
function rounded(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(value >= 10 ? 3 : 2)
}

function times(ratio: { value: number; least: boolean } | undefined): string {
  return ratio === undefined ? '' : `${ratio.least ? '> ' : ''}${rounded(ratio.value)} x`
}

/** Of our daemon, then of theirs. */
function cpu(contenders: (Result | undefined)[]): string {
  const texts = contenders.map(result => (result?.cpu.length ? median(result.cpu).toFixed(2) : ''))
  return texts.filter(text => text !== '').join(', ')
}

function beside({ row, results }: RowResult, output: Output, isFirst: boolean): string {
  const columns = ['cidfs', 'raw', output.theirs ?? 'Kubo', ...row.outputs.map(({ ours }) => ours)]
  const others = results
    .filter(({ name }) => !columns.includes(name))
    .map(result => ({ name: result.name, text: figure(result, output) }))
  const texts = others.filter(({ text }) => text !== '').map(({ name, text }) => `${name}: ${text}`)
  if (isFirst && row.note !== undefined) texts.push(row.note)
  return texts.join('; ')
}
