/**
 * What a transport gives to whoever mounts: a file system that is mounted, until it is not.
 *
 * Invariant: after `closed` nothing of the session is left. Both transports implement it, so the daemon chooses
 * one and then knows no difference.
 */

export interface OperationCount {
  count: number
  /** Answers with an errno, whichever it is (a missing name is one too). */
  errors: number
}

export interface SessionReport {
  operations: Record<string, OperationCount>
  inFlight: number
  /** `on`, or why the kernel does not read and write files by itself. */
  passthrough: string
}

export interface Session {
  /** Resolves when the connection has ended and everything of it is freed. */
  readonly closed: Promise<void>
  report(): SessionReport
  /** Waits until nothing is in flight. @returns false when that took longer than `ms`. */
  drain(ms: number): Promise<boolean>
  /**
   * Unmounts. While files are open it tries again for `lazyAfterMs`, then detaches the mount: it is gone from the
   * tree, and served until the last file is closed (`closed` tells).
   * @throws CidfsError `PERMISSION`, `MISSING_TOOL`.
   */
  unmount(options?: { lazyAfterMs?: number }): Promise<{ lazy: boolean }>
  /** Ends the connection without unmounting. */
  close(): void
}
