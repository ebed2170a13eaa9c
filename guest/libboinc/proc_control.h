/* Signals to processes and their descendants, with the names of BOINC's lib/proc_control.h. C++
 * only. See boinc_api.h. */
#ifndef BOINCVM_PROC_CONTROL_H
#define BOINCVM_PROC_CONTROL_H

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "common_defs.h"
#include "procinfo.h"
#include "util.h"

#define BOINCVM_KILL_PATIENCE 10 /* seconds that kill_descendants() gives a child to save */

/* Without the process itself. */
inline void get_descendants(int id, std::vector<int> &ids) {
    PROC_MAP processes;
    procinfo_setup(processes);
    ids.assign(1, id);
    for (size_t index = 0; index < ids.size(); index++) {
        PROCINFO &process = processes[ids[index]];
        if (!process.scanned) {
            process.scanned = true;
            ids.insert(ids.end(), process.children.begin(), process.children.end());
        }
    }
    ids.erase(ids.begin());
}

/* Whether one of these children still runs; those that have ended are reaped. */
inline bool any_process_exists(std::vector<int> &ids) {
    for (int id : ids) {
        int status;
        if (waitpid(id, &status, WNOHANG) >= 0) {
            return true;
        }
    }
    return false;
}

inline void kill_all(std::vector<int> &ids) {
    for (int id : ids) {
        kill(id, SIGTERM);
    }
}

/* Ends all that the calling process has started: `child` first, if it is not 0. */
inline void kill_descendants(int child = 0) {
    std::vector<int> ids;
    get_descendants(getpid(), ids);
    if (child) {
        kill(child, SIGTERM);
        for (int tenth = 0; tenth < 10 * BOINCVM_KILL_PATIENCE; tenth++) {
            if (!any_process_exists(ids)) {
                return;
            }
            boinc_sleep(0.1);
        }
        get_descendants(getpid(), ids);
    }
    kill_all(ids);
}

inline void suspend_or_resume_process(int id, bool resume, bool use_tstp = false) {
    kill(id, resume ? SIGCONT : use_tstp ? SIGTSTP : SIGSTOP);
}

inline void suspend_or_resume_descendants(bool resume, bool use_tstp = false) {
    std::vector<int> ids;
    get_descendants(getpid(), ids);
    for (int id : ids) {
        suspend_or_resume_process(id, resume, use_tstp);
    }
}

/* The nice value of a PROCESS_PRIORITY_…; 0 for any other number. */
inline int process_priority_value(int priority) {
    switch (priority) {
    case PROCESS_PRIORITY_LOWEST:
        return PROCESS_IDLE_PRIORITY;
    case PROCESS_PRIORITY_LOW:
        return PROCESS_MEDIUM_PRIORITY;
    case PROCESS_PRIORITY_HIGH:
        return PROCESS_ABOVE_NORMAL_PRIORITY;
    case PROCESS_PRIORITY_HIGHEST:
        return PROCESS_HIGH_PRIORITY;
    default:
        return PROCESS_NORMAL_PRIORITY;
    }
}
#endif
