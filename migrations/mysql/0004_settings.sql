-- What holds for the scheduler as a whole, such as since when it is paused.
create table settings (
    name  varbinary(255) not null primary key,
    value text           not null
) engine = InnoDB default charset = utf8mb4;
