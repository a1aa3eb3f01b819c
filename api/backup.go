package api

// BackupType is the media type of a backup: a tar archive compressed by zstd.
const BackupType = "application/zstd"
