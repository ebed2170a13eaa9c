/* The flags and functions of BOINC's lib/diagnostics.h that applications use. Standard error is
 * shown to the person who looks at the task already, so there is nothing to redirect. */
#ifndef BOINCVM_DIAGNOSTICS_H
#define BOINCVM_DIAGNOSTICS_H

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

static inline int boinc_init_diagnostics(int flags) {
    (void)flags;
    return 0;
}

static inline int boinc_finish_diag(void) { return 0; }

#endif
