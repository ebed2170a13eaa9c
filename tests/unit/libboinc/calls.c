/* One call of the API per run, for the tests; C and C++. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boinc_api.h"
#include "error_numbers.h"

static void *report(void *nothing) {
    int i;
    for (i = 0; i <= 100000; i++) boinc_fraction_done(i / 1e5);
    return nothing;
}

static void show(int result, const char *text) { printf("%d %s\n", result, text); }

int main(int argc, char **argv) {
    static char text[70000];
    char path[64];
    int i;
    double cpu;
    APP_INIT_DATA data;
    const char *call = argv[1];

    if (argc < 2 || boinc_init()) return 99;
    if (!strcmp(call, "loop")) {
        for (i = 0; i < 10000000; i++) boinc_fraction_done((i % 1000) / 1000.0);
    } else if (!strcmp(call, "threads")) {
        pthread_t threads[4];
        for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, report, NULL);
        for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        boinc_finish(0);
    } else if (!strcmp(call, "resolve")) {
        i = boinc_resolve_filename(argv[2], path, sizeof path);
        show(i, path);
    } else if (!strcmp(call, "data")) {
        show(boinc_is_standalone(), "standalone");
        boinc_get_init_data_p(&data);
        boinc_wu_cpu_time_p(&cpu);
        printf("%s|%s|%d|%.3f|%.1f|%d|%d|%d|%s|%.0f|%.1f\n", data.wu_name, data.user_name,
               data.userid, data.checkpoint_period, data.rsc_fpops_bound / 1e9, data.slot,
               data.using_sandbox, data.host_info.p_ncpus,
               data.project_preferences ? data.project_preferences : "none",
               data.fraction_done_end, cpu >= data.wu_cpu_time ? data.wu_cpu_time : -1);
        printf("%d\n", boinc_parse_init_data_file());
    } else if (!strcmp(call, "trickle")) {
        show(boinc_send_trickle_up(argv[2], argv[3]), "");
        show(boinc_send_trickle_up(argv[2], argv[3]), "");
        show(boinc_receive_trickle_down(path, sizeof path), path);
    } else if (!strcmp(call, "upload")) {
        show(boinc_upload_file_c(argv[2]), "");
        show(boinc_upload_status_c(argv[2]), "");
    } else if (!strcmp(call, "finish")) {
        memset(text, 'x', sizeof text - 1);
        if (strcmp(argv[2], "long")) memcpy(text, argv[2], strlen(argv[2]) + 1);
        boinc_finish_message(3, text, false);
    } else if (!strcmp(call, "temporary")) {
        boinc_temporary_exit(atoi(argv[2]), argv[3], true);
    } else if (!strcmp(call, "status")) {
        boinc_report_app_status(1, 2, 0.5);
        boinc_report_app_status(3, 2, 0.5);
    } else if (!strcmp(call, "rates")) {
        boinc_ops_per_cpu_sec(1e12, 0);
        boinc_checkpoint_completed();
    } else if (!strcmp(call, "gone")) { /* the test closes its end when it sees this line */
        puts("ready");
        fflush(stdout);
        fgets(text, sizeof text, stdin);
        boinc_fraction_done(0.5);
        boincvm_want_checkpoint();
        puts("alive");
    } else if (!strcmp(call, "flood")) {
        for (i = 0; i < 5000; i++) boincvm_want_checkpoint();
        boinc_finish(0);
    }
    return 0;
}
