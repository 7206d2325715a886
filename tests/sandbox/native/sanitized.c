/* What turns the launcher into one that checks itself: linked with all of native/ under -fsanitize=address,undefined, and with
 * --wrap=dup2. See compile_sanitized_launcher of tests/support/native_harness.py.
 *
 * The launcher starts with an empty environment, so options are compiled in. A report is written to standard error, which PID 1
 * keeps here, and names lines although nothing of the host can be opened any more: they are looked up once before. The process
 * then exits; that of a launcher or of a PID 1 fails the test. */
#include <stdint.h>
#include <unistd.h>

const char *__asan_default_options(void);
const char *__ubsan_default_options(void);
void __sanitizer_symbolize_pc(void *address, const char *format, char *buffer, size_t room);
int __real_dup2(int from, int to);
int __wrap_dup2(int from, int to);

/* Nothing is ever given back, so nothing leaks, and to look for it would need ptrace(2). PID 1 sets every signal to its default:
 * SIGSEGV is reported all the same. */
const char *__asan_default_options(void)
{
    return "detect_leaks=0:handle_segv=2:handle_sigbus=2:handle_sigfpe=2:strict_string_checks=1:exitcode=99";
}

const char *__ubsan_default_options(void)
{
    return "print_stacktrace=1:exitcode=99";
}

/* Load what names of lines are found with. */
__attribute__((constructor)) static void load_lines(void)
{
    char buffer[256];
    __sanitizer_symbolize_pc((void *)(uintptr_t)load_lines, "%S", buffer, sizeof buffer);
}

/* PID 1 would replace its stderr by /dev/null. */
int __wrap_dup2(int from, int to)
{
    return from == STDIN_FILENO && to == STDERR_FILENO ? to : __real_dup2(from, to);
}
