/* The words by which the library tells the host something. Internal; see boinc_api.h. */
#ifndef BOINCVM_VOICE_H
#define BOINCVM_VOICE_H

#ifdef __cplusplus
extern "C" {
#endif

/* Whether somebody listens: BOINCVM_VOICE names a FIFO that has a reader. */
int boincvm_voice_exists(void);

/* Says one line (its end is added; control characters become spaces, what is no UTF-8
 * becomes ?, all beyond 4095 bytes is cut).
 * Waits while the FIFO is full, except where the word may be dropped. */
enum boincvm_patience { BOINCVM_WAIT, BOINCVM_MAY_DROP };
void boincvm_say(enum boincvm_patience patience, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
