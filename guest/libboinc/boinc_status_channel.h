/* The messages that the library sends to the host. Internal; see boinc_api.h. */
#ifndef BOINCVM_STATUS_CHANNEL_H
#define BOINCVM_STATUS_CHANNEL_H

#ifdef __cplusplus
extern "C" {
#endif

/* Return 1 if somebody listens: BOINCVM_STATUS_CHANNEL names a FIFO that has a reader. */
int boincvm_status_channel_exists(void);

/* Send one line (its end is added; control characters become spaces, invalid UTF-8
 * becomes ?, all beyond 4095 bytes is cut).
 * Waits while the FIFO is full, unless the message may be dropped. */
enum boincvm_patience { BOINCVM_WAIT, BOINCVM_MAY_DROP };
void boincvm_send_message(enum boincvm_patience patience, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#ifdef __cplusplus
}
#endif
#endif
