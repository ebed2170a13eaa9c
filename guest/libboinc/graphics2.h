/* The part of BOINC's api/graphics2.h that an application itself uses. A guest has no screen: the
 * graphics program and what it draws with (app_graphics_…, boinc_graphics_loop) is not there. */
#ifndef BOINCVM_GRAPHICS2_H
#define BOINCVM_GRAPHICS2_H

#ifdef __cplusplus
extern "C" {
#endif

struct BOINC_STATUS;

/* Memory that other programs in the machine share, the file boinc_NAME_SLOT of the working
 * directory; a null pointer if there is none. */
extern void *boinc_graphics_make_shmem(const char *name, int size);
extern void *boinc_graphics_get_shmem(const char *name);

/* The file graphics_status.xml of the working directory. Return 0, ERR_FOPEN, ERR_FWRITE,
 * ERR_XML_PARSE; `status` gets all zero. */
extern int boinc_write_graphics_status(
    double cpu_time, double elapsed_time, double fraction_done);
extern int boinc_parse_graphics_status(
    double *update_time, double *cpu_time, double *elapsed_time, double *fraction_done,
    struct BOINC_STATUS *status);

#ifdef __cplusplus
}
#endif
#endif
