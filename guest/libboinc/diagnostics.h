/* The flags and functions of BOINC's lib/diagnostics.h that applications use. Standard error is
 * shown to the person who looks at the task already, so there is nothing to redirect; what ends a
 * program is told by the host. */
#ifndef BOINCVM_DIAGNOSTICS_H
#define BOINCVM_DIAGNOSTICS_H

#include <assert.h>
#include <signal.h>

#define BOINC_DIAG_DUMPCALLSTACKENABLED 0x0001L
#define BOINC_DIAG_HEAPCHECKENABLED 0x0002L
#define BOINC_DIAG_MEMORYLEAKCHECKENABLED 0x0004L
#define BOINC_DIAG_ARCHIVESTDERR 0x0008L
#define BOINC_DIAG_ARCHIVESTDOUT 0x0010L
#define BOINC_DIAG_REDIRECTSTDERR 0x0020L
#define BOINC_DIAG_REDIRECTSTDOUT 0x0040L
#define BOINC_DIAG_REDIRECTSTDERROVERWRITE 0x0080L
#define BOINC_DIAG_REDIRECTSTDOUTOVERWRITE 0x0100L
#define BOINC_DIAG_TRACETOSTDERR 0x0200L
#define BOINC_DIAG_TRACETOSTDOUT 0x0400L
#define BOINC_DIAG_HEAPCHECKEVERYALLOC 0x0800L
#define BOINC_DIAG_BOINCAPPLICATION 0x1000L
#define BOINC_DIAG_PERUSERLOGFILES 0x2000L
#define BOINC_DIAG_DEFAULTS                                                                        \
    (BOINC_DIAG_DUMPCALLSTACKENABLED | BOINC_DIAG_HEAPCHECKENABLED |                               \
     BOINC_DIAG_MEMORYLEAKCHECKENABLED | BOINC_DIAG_REDIRECTSTDERR | BOINC_DIAG_TRACETOSTDERR)

#define BOINC_DIAG_STDERR "stderr"
#define BOINC_DIAG_STDOUT "stdout"
#define BOINC_DIAG_GFX_STDERR "stderrgfx"
#define BOINC_DIAG_GFX_STDOUT "stdoutgfx"

#ifdef __cplusplus
extern "C" {
#endif

/* These do nothing, and return 0. */
static inline int boinc_init_diagnostics(int flags) {
    (void)flags;
    return 0;
}
static inline int boinc_init_graphics_diagnostics(int flags) {
    (void)flags;
    return 0;
}
static inline int boinc_install_signal_handlers(void) { return 0; }
static inline int boinc_finish_diag(void) { return 0; }
static inline int diagnostics_init(int flags, const char *out, const char *err) {
    (void)flags;
    (void)out;
    (void)err;
    return 0;
}
static inline int diagnostics_finish(void) { return 0; }
static inline int diagnostics_thread_init(void) { return 0; }
static inline int diagnostics_is_initialized(void) { return 0; }
static inline int diagnostics_is_flag_set(int flags) {
    (void)flags;
    return 0;
}
static inline int diagnostics_cycle_logs(void) { return 0; }
static inline int diagnostics_set_thread_exempt_suspend(void) { return 0; }
static inline void diagnostics_set_max_file_sizes(double out, double err) {
    (void)out;
    (void)err;
}
static inline void set_signal_exit_code(int code) { (void)code; }

/* To standard error. */
extern void boinc_trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
extern void boinc_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

#ifdef __cplusplus
}
#endif

#ifdef _DEBUG
#define BOINCASSERT assert
#define BOINCTRACE boinc_trace
#else
#define BOINCASSERT(condition)
#define BOINCTRACE(...)
#endif
#define BOINCINFO boinc_info

#endif
