/* Numbers that BOINC's client and applications share (BOINC's lib/common_defs.h); those of its
 * GUI protocol and of the server are left out. See boinc_api.h. */
#ifndef BOINCVM_COMMON_DEFS_H
#define BOINCVM_COMMON_DEFS_H

/* A sporadic application: what the client lets it do ("client to app"), and what it wants. */
enum SPORADIC_CA_STATE { CA_NONE = 0, CA_DONT_COMPUTE = 1, CA_COULD_COMPUTE = 2, CA_COMPUTING = 3 };
enum SPORADIC_AC_STATE { AC_NONE = 0, AC_DONT_WANT_COMPUTE = 1, AC_WANT_COMPUTE = 2 };

/* Priorities of a job file, lowest to highest, and the volunteer's (one less). */
#define PROCESS_PRIORITY_UNSPECIFIED 0
#define PROCESS_PRIORITY_LOWEST 1
#define PROCESS_PRIORITY_LOW 2
#define PROCESS_PRIORITY_NORMAL 3
#define PROCESS_PRIORITY_HIGH 4
#define PROCESS_PRIORITY_HIGHEST 5
#define CONFIG_PRIORITY_UNSPECIFIED (-1)
#define CONFIG_PRIORITY_LOWEST 0
#define CONFIG_PRIORITY_LOW 1
#define CONFIG_PRIORITY_NORMAL 2
#define CONFIG_PRIORITY_HIGH 3
#define CONFIG_PRIORITY_HIGHEST 4
#define CONFIG_PRIORITY_REALTIME 5

#define RUN_MODE_ALWAYS 1
#define RUN_MODE_AUTO 2
#define RUN_MODE_NEVER 3
#define RUN_MODE_RESTORE 4

#define MODE_UNSUPPORTED 0
#define MODE_HIDE_GRAPHICS 1
#define MODE_WINDOW 2
#define MODE_FULLSCREEN 3
#define MODE_BLANKSCREEN 4
#define MODE_REREAD_PREFS 5
#define MODE_QUIT 6
#define NGRAPHICS_MSGS 7

#define MSG_INFO 1
#define MSG_USER_ALERT 2
#define MSG_INTERNAL_ERROR 3
#define MSG_SCHEDULER_ALERT 4

#define PROCESS_UNINITIALIZED 0
#define PROCESS_EXECUTING 1
#define PROCESS_EXITED 2
#define PROCESS_WAS_SIGNALED 3
#define PROCESS_EXIT_UNKNOWN 4
#define PROCESS_ABORT_PENDING 5
#define PROCESS_ABORTED 6
#define PROCESS_COULDNT_START 7
#define PROCESS_QUIT_PENDING 8
#define PROCESS_SUSPENDED 9
#define PROCESS_COPY_PENDING 10

#define COBBLESTONE_SCALE (200 / 86400e9) /* credit for one floating-point operation */

#endif
