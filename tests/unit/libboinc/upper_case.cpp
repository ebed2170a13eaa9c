// An application as BOINC's own example is: it knows of nothing but BOINC's API. C++.
#include "config.h"

#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "boinc_api.h"
#include "filesys.h"
#include "graphics2.h"
#include "mfile.h"
#include "str_util.h"
#include "util.h"

using std::string;

static const char *STATE = "upper_case_state";

static int do_checkpoint(MFILE &out, long count) {
    string path;
    FILE *file = fopen("temp", "w");
    if (!file) return 1;
    fprintf(file, "%ld", count);
    fclose(file);
    int result = out.flush();
    if (result) return result;
    boinc_resolve_filename_s(STATE, path);
    return boinc_rename("temp", path.c_str());
}

int main(int argc, char **argv) {
    char in_path[512], out_path[512], state_path[512], prefix[256];
    long count = 0, stop_at = argc > 1 ? atol(argv[1]) : -1;
    double size;
    MFILE out;

    BOINC_OPTIONS options;
    boinc_options_defaults(options);
    options.multi_thread = true;
    int result = boinc_init_options(&options);
    if (result) {
        fprintf(stderr, "%s boinc_init: %d\n", boinc_msg_prefix(prefix, sizeof(prefix)), result);
        exit(result);
    }
    APP_INIT_DATA aid;
    boinc_get_init_data(aid);
    boinc_resolve_filename("in", in_path, sizeof(in_path));
    FILE *in = boinc_fopen(in_path, "r");
    if (!in) boinc_temporary_exit(60, "no input");
    file_size(in_path, size);
    boinc_resolve_filename("out", out_path, sizeof(out_path));
    boinc_resolve_filename(STATE, state_path, sizeof(state_path));
    FILE *state = boinc_fopen(state_path, "r");
    if (state && fscanf(state, "%ld", &count) == 1) {
        fseek(in, count, SEEK_SET);
        boinc_truncate(out_path, count);
        result = out.open(out_path, "ab");
    } else {
        result = out.open(out_path, "wb");
    }
    if (state) fclose(state);
    if (result) return 2;
    for (int letter; (letter = fgetc(in)) != EOF;) {
        out._putchar(static_cast<char>(toupper(letter)));
        count++;
        if (boinc_time_to_checkpoint()) {
            if (do_checkpoint(out, count)) return 3;
            boinc_checkpoint_completed();
        }
        if (count == stop_at) {
            boinc_disable_timer_thread = true;
            boinc_crash();
        }
        boinc_fraction_done(static_cast<double>(count) / size);
    }
    boinc_ops_cumulative(static_cast<double>(count), 2. * static_cast<double>(count));
    if (out.flush()) return 4;
    printf("%ld letters", count);
    boinc_finish(0);
}
