// Shared between the C files of this target only.
#ifndef C_PROCESS_SHIMS_INTERNAL_H
#define C_PROCESS_SHIMS_INTERNAL_H

/// Closes every descriptor from `first` on. Async-signal-safe.
void cps_close_from(int first);

/// Where the kernel keeps our command line, for cps_set_process_title.
struct cps_title_area {
    char* start;
    char* end;
};
struct cps_title_area cps_find_title_area(void);
/// Async-signal-safe.
void cps_write_title(struct cps_title_area area, const char* title);

#endif
