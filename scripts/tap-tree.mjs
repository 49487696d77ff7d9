/**
 * The TAP of one test file as a tree, and what it counts for.
 *
 * A test is a `t.test` that holds no further one, or an assertion outside of any; a `t.test` that holds others
 * is a group and counts for what is in it. Whatever is skipped inside is listed, however deep.
 */
import { inspect } from 'node:util'
import { Parser } from 'tap-parser'

/** Reads TAP to its end. Node: { name, ok, skip, diag, subtest, children }; the root also has `final`. */
export function readTap(stream) {
  return new Promise(resolve => {
    const top = { name: '', subtest: true, children: [] }
    const parser = new Parser(final => resolve({ ...top, ok: final.ok, final }))
    watch(parser, top)
    stream.pipe(parser)
    stream.once('close', () => parser.end()) // also when it was cut off
  })
}

function watch(parser, node) {
  let inner
  parser.on('child', child => {
    inner = []
    watch(child, { children: inner })
  })
  parser.on('assert', ({ name, ok, skip, todo, diag }) => {
    node.children.push({
      name,
      ok,
      skip: skip || todo,
      diag,
      subtest: inner !== undefined,
      children: inner ?? [],
    })
    inner = undefined
  })
}

/** { passed: number, failed: string[], skipped: string[], details: string[] } of a tree of `readTap`. */
export function countTests(top) {
  const counts = { passed: 0, failed: [], skipped: [], details: [] }
  for (const node of top.children) countNode(node, node.name, counts)
  counts.failed = [...new Set(counts.failed)] // tap reports a time limit twice
  const { plan } = top.final
  const total = counts.passed + counts.failed.length + counts.skipped.length
  if (plan?.skipAll) counts.skipped.push(`everything (${plan.skipReason})`)
  else if (total === 0) counts.failed.push('ran no test')
  else if (!top.ok && counts.failed.length === 0)
    counts.failed.push('ended too early, or its TAP is incomplete')
  return counts
}

function countNode(node, path, counts) {
  if (node.skip) return void counts.skipped.push(path + reason(node.skip))
  const subtests = node.children.filter(child => child.subtest)
  for (const child of subtests) countNode(child, `${path} > ${child.name}`, counts)
  const points = node.children.filter(child => !child.subtest)
  for (const { name, skip } of points.filter(point => point.skip)) {
    counts.skipped.push(`${path} > ${name}${reason(skip)}`)
  }
  const broken = points.filter(point => !point.ok && !point.skip)
  for (const point of broken) counts.details.push(describe(`${path} > ${point.name}`, point.diag))
  if (!node.ok && (broken.length > 0 || subtests.every(child => child.ok))) fail(node, path, counts)
  else if (subtests.length === 0 && (points.length === 0 || points.some(point => !point.skip)))
    counts.passed++
}

/** A subtest that fails as a whole (a time limit, a plan) has diagnostics of its own. */
function fail(node, path, counts) {
  counts.failed.push(path)
  if (node.children.every(child => child.ok)) counts.details.push(describe(path, node.diag))
}

function reason(skip) {
  return typeof skip === 'string' && skip !== '' ? ` (${skip})` : ''
}

/** Place, difference or stack, and whatever else the assertion says. */
function describe(path, diag) {
  if (!diag) return path
  const { at, source, stack, diff, compare, tapCaught, ...rest } = diag
  const lines = [path]
  if (at?.fileName) lines.push(`  at ${at.fileName}:${at.lineNumber}`)
  if (diff) lines.push(diff.trimEnd())
  else if (stack) lines.push(stack.trimEnd())
  if (Object.keys(rest).length > 0)
    lines.push(inspect(rest, { depth: 6, maxStringLength: 4000, breakLength: 110 }))
  return lines.join('\n')
}
