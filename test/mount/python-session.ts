/** A Python that keeps what it has open between the lines that a test gives it. */
import type { Owner } from '../support/temp.js'
import { LineProgram } from './line-program.js'

const LOOP = `
import errno, fcntl, json, mmap, os, sys
known = dict(os=os, mmap=mmap, fcntl=fcntl, errno=errno)
for line in sys.stdin:
    code = json.loads(line)
    try:
        try: result = eval(code, known)
        except SyntaxError:
            exec(code, known)
            result = None
    except OSError as err: result = errno.errorcode[err.errno]
    if isinstance(result, bytes): result = result.decode("latin1")
    print(json.dumps(result), flush=True)
`

export class PythonSession {
  private constructor(private readonly program: LineProgram) {}

  static start(t: Owner, known: Record<string, string> = {}): PythonSession {
    const names = Object.entries(known).map(([name, value]) => `${name} = ${JSON.stringify(value)}\n`)
    return new PythonSession(
      LineProgram.start(t, 'python3', [
        '-c',
        names.join('') +
          LOOP.replace(
            'dict(',
            `dict(${Object.keys(known)
              .map(name => `${name}=${name}, `)
              .join('')}`,
          ),
      ]),
    )
  }

  /** The value of an expression, null for a statement, the name of the errno for an OSError. */
  async run<T>(code: string): Promise<T> {
    return JSON.parse(await this.program.ask(code)) as T
  }
}
