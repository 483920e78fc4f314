/* SPDX-License-Identifier: MIT */
/*
 * crc32c_tool.c - CRC-32C of standard input, one line "name hex" for each implementation that this
 * processor has, to be compared with programs that share no code with ours.
 */
#include <stdio.h>
#include <stdlib.h>

#include "crc32c/crc32c.h"

int main(void)
{
    size_t capacity = 1u << 16, bytes = 0, got;
    unsigned char *data = malloc(capacity);

    while (data && (got = fread(data + bytes, 1, capacity - bytes, stdin)) > 0) {
        bytes += got;
        if (bytes == capacity) {
            unsigned char *larger = realloc(data, capacity *= 2);

            if (!larger)
                free(data);
            data = larger;
        }
    }
    if (!data || ferror(stdin)) {
        perror("crc32c_tool");
        free(data);
        return 1;
    }
    for (const chron__crc32c_impl *impl = chron__crc32c_impls; impl->name; impl++)
        if (impl->available())
            printf("%s %08x\n", impl->name, impl->update(0, data, bytes));
    free(data);
    return 0;
}
