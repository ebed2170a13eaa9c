/* An application as BOINC's own example is: it knows of nothing but BOINC's API. C. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "boinc_api.h"
#include "diagnostics.h"
#include "error_numbers.h"
#include "filesys.h"
#include "util.h"

#define STATE "upper_case_state"

static int do_checkpoint(FILE *out, long count) {
    char path[512];
    FILE *file = boinc_fopen("temp", "w");
    if (!file || fflush(out)) return ERR_FOPEN;
    fprintf(file, "%ld", count);
    fclose(file);
    boinc_resolve_filename(STATE, path, sizeof path);
    return boinc_rename("temp", path);
}

int main(int argc, char **argv) {
    char in_path[512], out_path[512], state_path[512], prefix[256];
    FILE *in, *out, *state;
    double size;
    long count = 0, stop_at = argc > 1 ? atol(argv[1]) : -1;
    int letter;
    BOINC_OPTIONS options;

    boinc_init_diagnostics(BOINC_DIAG_DEFAULTS);
    boinc_options_defaults(&options);
    if (boinc_init_options(&options)) return 1;
    boinc_resolve_filename("in", in_path, sizeof in_path);
    boinc_resolve_filename("out", out_path, sizeof out_path);
    in = boinc_fopen(in_path, "r");
    if (!in) {
        fprintf(stderr, "%s no input %s\n", boinc_msg_prefix(prefix, sizeof prefix), in_path);
        boinc_finish_message(ERR_FOPEN & 0xFF, "no input", true);
    }
    boinc_file_size_p(in_path, &size);
    boinc_resolve_filename(STATE, state_path, sizeof state_path);
    state = boinc_fopen(state_path, "r");
    if (state && fscanf(state, "%ld", &count) == 1) {
        fseek(in, count, SEEK_SET);
        boinc_truncate(out_path, (double)count);
        out = boinc_fopen(out_path, "ab");
    } else {
        out = boinc_fopen(out_path, "wb");
    }
    if (state) fclose(state);
    if (!out) return 2;
    while ((letter = fgetc(in)) != EOF) {
        fputc(toupper(letter), out);
        count++;
        if (boinc_time_to_checkpoint()) {
            if (do_checkpoint(out, count)) return 3;
            boinc_checkpoint_completed();
        }
        if (count == stop_at) abort();
        boinc_fraction_done((double)count / size);
    }
    boinc_ops_cumulative((double)count, 2.0 * (double)count);
    if (fclose(out)) return 4;
    printf("%ld letters", count); /* not flushed here */
    boinc_finish(0);
    return 5;
}
