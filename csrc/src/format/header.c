/* SPDX-License-Identifier: MIT */
/* header.c - the common file header: encode and check. Called by whoever creates or opens a file. */
#include "format/header.h"

#include "base/endian.h"
#include "base/error.h"

#define CRC_BYTES (offsetof(chron__file_header, crc))

void chron__header_encode(const chron__file_header *header, uint8_t *out)
{
    memset(out, 0, sizeof *header);
    memcpy(out, header->magic, sizeof header->magic);
    chron__write_le32(out + offsetof(chron__file_header, version), CHRON_FORMAT_VERSION);
    chron__write_le32(out + offsetof(chron__file_header, compat), header->compat);
    chron__write_le32(out + offsetof(chron__file_header, incompat), header->incompat);
    chron__write_le32(out + offsetof(chron__file_header, stride), header->stride);
    memcpy(out + offsetof(chron__file_header, uuid), header->uuid, sizeof header->uuid);
    chron__write_le64(out + offsetof(chron__file_header, created_ns), header->created_ns);
    chron__write_le64(out + offsetof(chron__file_header, segment_size), header->segment_size);
    chron__write_le64(out + offsetof(chron__file_header, base_seq), header->base_seq);
    chron__write_le64(out + offsetof(chron__file_header, prev_base), header->prev_base);
    chron__write_le64(out + offsetof(chron__file_header, data_offset), header->data_offset);
    chron__write_le64(out + offsetof(chron__file_header, epoch), header->epoch);
    chron__write_le32(out + CRC_BYTES, chron_crc32c(0, out, CRC_BYTES));
}

static void decode(const uint8_t *bytes, chron__file_header *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->magic, bytes, sizeof out->magic);
    out->version = chron__read_le32(bytes + offsetof(chron__file_header, version));
    out->compat = chron__read_le32(bytes + offsetof(chron__file_header, compat));
    out->incompat = chron__read_le32(bytes + offsetof(chron__file_header, incompat));
    out->stride = chron__read_le32(bytes + offsetof(chron__file_header, stride));
    memcpy(out->uuid, bytes + offsetof(chron__file_header, uuid), sizeof out->uuid);
    out->created_ns = chron__read_le64(bytes + offsetof(chron__file_header, created_ns));
    out->segment_size = chron__read_le64(bytes + offsetof(chron__file_header, segment_size));
    out->base_seq = chron__read_le64(bytes + offsetof(chron__file_header, base_seq));
    out->prev_base = chron__read_le64(bytes + offsetof(chron__file_header, prev_base));
    out->data_offset = chron__read_le64(bytes + offsetof(chron__file_header, data_offset));
    out->epoch = chron__read_le64(bytes + offsetof(chron__file_header, epoch));
    out->crc = chron__read_le32(bytes + CRC_BYTES);
}

/* A flag says something about one kind of file only. */
static uint32_t known_features(const char *magic)
{
    if (memcmp(magic, CHRON__MAGIC_META, 8) == 0 || memcmp(magic, CHRON__MAGIC_SEGMENT, 8) == 0)
        return CHRON__INCOMPAT_REUSE;
    return memcmp(magic, CHRON__MAGIC_DOORBELL, 8) == 0 ? CHRON__INCOMPAT_FENCE : 0;
}

/* A version of which a bit was flipped, and that is no later one. */
static int is_ours_but_for_version(const uint8_t *bytes)
{
    uint8_t copy[CRC_BYTES];

    memcpy(copy, bytes, sizeof copy);
    chron__write_le32(copy + offsetof(chron__file_header, version), CHRON_FORMAT_VERSION);
    return chron__read_le32(bytes + CRC_BYTES) == chron_crc32c(0, copy, sizeof copy);
}

int chron__header_decode(const uint8_t *bytes, const char *magic, const uint8_t *uuid, const char *file,
                         chron__file_header *out)
{
    decode(bytes, out);
    if (memcmp(out->magic, magic, sizeof out->magic) != 0)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "%s does not begin with \"%.8s\": it is damaged, or not a "
                                     "file of this kind",
                                     file, magic),
                         file, 0, CHRON_SEQ_NONE);
    /* Before the CRC: a later version may well have another one. */
    if (out->version == 0) /* no program ever wrote that: what should stand here never came to the disk */
        return chron__at(chron__fail(CHRON_ECORRUPT, "the header of %s is damaged (it has no version)", file), file,
                         offsetof(chron__file_header, version), CHRON_SEQ_NONE);
    if (out->version != CHRON_FORMAT_VERSION && !is_ours_but_for_version(bytes))
        return chron__at(chron__fail(CHRON_EFORMAT,
                                     "%s has format version %u; this library reads version %d: "
                                     "use a newer one",
                                     file, (unsigned)out->version, CHRON_FORMAT_VERSION),
                         file, offsetof(chron__file_header, version), CHRON_SEQ_NONE);
    if (out->crc != chron_crc32c(0, bytes, CRC_BYTES))
        return chron__at(chron__fail(CHRON_ECORRUPT, "the header of %s is damaged (CRC mismatch)", file), file, 0,
                         CHRON_SEQ_NONE);
    if (out->incompat & ~known_features(magic))
        return chron__at(chron__fail(CHRON_EFORMAT,
                                     "%s uses features that this library does not know (incompat "
                                     "flags 0x%x): use a newer one",
                                     file, (unsigned)out->incompat),
                         file, offsetof(chron__file_header, incompat), CHRON_SEQ_NONE);
    if (uuid && memcmp(out->uuid, uuid, sizeof out->uuid) != 0)
        return chron__at(chron__fail(CHRON_ECORRUPT,
                                     "%s belongs to another queue (its uuid differs from "
                                     "queue.meta's)",
                                     file),
                         file, offsetof(chron__file_header, uuid), CHRON_SEQ_NONE);
    return 0;
}

int chron__header_is_whole(const uint8_t *bytes)
{
    return chron__read_le32(bytes + CRC_BYTES) == chron_crc32c(0, bytes, CRC_BYTES);
}
