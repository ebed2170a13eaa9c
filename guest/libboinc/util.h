/* Time, with the names of BOINC's lib/util.h. See boinc_api.h. */
#ifndef BOINCVM_UTIL_H
#define BOINCVM_UTIL_H

#include <signal.h>
#include <stdlib.h>

#define SECONDS_PER_DAY 86400
#define KILO (1024.0)
#define MEGA (1048576.0)
#define GIGA (1073741824.0)

#ifdef __cplusplus
extern "C" {
#endif

extern double dtime(void);               /* seconds since 1970 */
extern double dday(void);                /* the same, of the day's first second (UTC) */
extern void boinc_sleep(double seconds); /* whatever signals come */

static inline double drand(void) { return (double)rand() / (double)RAND_MAX; }

/* Ends like a program with a fault in it. */
static inline void boinc_crash(void) { raise(SIGSEGV); }

#ifdef __cplusplus
}
#endif
#endif
