"""The page as an API: `/api/v1`, its operations, their OpenAPI document, and the events of jobs that are not on Ray."""
