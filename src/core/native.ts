/**
 * The addon of `native/`, loaded once.
 *
 * Invariant: this is the only module that knows where the compiled addon lies. Arguments are validated by the
 * TypeScript callers; the addon only does what JavaScript cannot. Failures throw `NativeError`, which carries
 * a negative `errno`, `code` and `syscall` like Node's own.
 */
